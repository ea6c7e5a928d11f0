package yardarm.suite;

import com.fasterxml.jackson.databind.ObjectMapper;
import dev.openfeature.contrib.providers.flagd.Config;
import io.cucumber.core.cli.Main;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/**
 * Runs the scenarios of flagd's testbed through the released OpenFeature provider for Java: {@code Suite MODE TESTBED_DIR PORTS}. What the
 * testbed has in containers is a launchpad on this machine, and PORTS says where.
 */
public final class Suite {
    static final String RPC = "rpc";
    static final String IN_PROCESS = "in-process";

    public static Config.Resolver resolver;
    public static Launchpad launchpad;

    private Suite() {}

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 3 || !List.of(RPC, IN_PROCESS).contains(arguments[0])) {
            throw new IllegalArgumentException("expected rpc or in-process, TESTBED_DIR and PORTS, as tests/providers/java/run gives them");
        }
        String mode = arguments[0];
        resolver = mode.equals(RPC) ? Config.Resolver.RPC : Config.Resolver.IN_PROCESS;
        launchpad = new Launchpad(new ObjectMapper().readTree(arguments[2]));
        Main.run(
                new String[] {
                    "--glue", "yardarm.suite.steps",
                    "--plugin", Tally.class.getName(),
                    "--tags", String.join(" and ", tags(mode)),
                    "--monochrome",
                    // It would list what is skipped among the failures.
                    "--no-summary",
                    Path.of(arguments[1], "gherkin").toString()
                },
                Suite.class.getClassLoader());
        String incomplete = Tally.incomplete();
        if (incomplete != null) {
            System.err.println("suite: " + incomplete);
            System.exit(2);
        }
        System.out.println("SUITE java-" + mode + " " + Tally.line());
        // The provider has threads that are no daemons.
        System.exit(Tally.failed() > 0 ? 1 : 0);
    }

    private static List<String> tags(String mode) {
        // In both modes: a flag without a default is an error to this provider, as the scenarios that flagd calls deprecated have it.
        if (mode.equals(RPC)) {
            // The server deals.
            String other = fractional().equals("2") ? "3" : "2";
            return List.of("@rpc", "not @no-default-variant", "not @fractional-v1", "not @fractional-v" + other);
        }
        // The provider deals, and this one has the first arithmetic; the rows with nested operators have none of their own.
        return List.of(
                "@in-process",
                "not @no-default-variant",
                "not @fractional-v2",
                "not @fractional-v3",
                "not @fractional-nested",
                "not @semver-partial-version",
                "not @semver-numeric-context");
    }

    /** The generation of flagd's arithmetic that the server has: the environment says so where it is not the newest. */
    private static String fractional() {
        return System.getenv().getOrDefault("FRACTIONAL", "3");
    }
}
