package yardarm.suite;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.openfeature.contrib.providers.flagd.Config;
import dev.openfeature.contrib.providers.flagd.FlagdOptions;
import dev.openfeature.contrib.providers.flagd.FlagdProvider;
import dev.openfeature.sdk.Client;
import dev.openfeature.sdk.FlagEvaluationDetails;
import dev.openfeature.sdk.OpenFeatureAPI;
import java.io.BufferedReader;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/** What no scenario of flagd can ask: what a provider keeps is not served once the flag is killed. {@code Kill BINARY}. */
public final class Kill {
    // Of the first flag a provider may keep the answer: nothing says that it is meant to be killed.
    private static final String FLAGS =
            """
            {"flags": {
              "kept": {"variants": {"new": "two", "old": "one"}, "defaultVariant": "new", "offVariant": "old"},
              "armed": {"variants": {"new": "two", "old": "one", "safe": "none"}, "defaultVariant": "new", "offVariant": "old", "killVariant": "safe"}
            }}
            """;
    // Reached only when a test fails.
    private static final int WAIT_S = 30;

    private interface Scenario {
        void play() throws Exception;
    }

    private final String binary;
    private final Path directory;
    private final Process dev;
    private final String control;
    private final Client client;
    private final BlockingQueue<List<String>> changes = new LinkedBlockingQueue<>();
    private int passed;
    private int failed;

    public static void main(String[] arguments) throws Exception {
        Kill kill = new Kill(arguments[0]);
        try {
            kill.scenario("a flag that the provider has kept is killed and restored", kill::keptIsKilled);
            kill.scenario("a flag with a kill variant serves that when it is killed", kill::armedIsKilled);
        } finally {
            kill.end();
        }
        System.out.println("SUITE java-kill passed=" + kill.passed + " failed=" + kill.failed + " skipped=0");
        System.exit(kill.failed > 0 ? 1 : 0);
    }

    private Kill(String binary) throws Exception {
        this.binary = binary;
        directory = Files.createTempDirectory("yardarm-");
        Path flags = Files.writeString(directory.resolve("flags.json"), FLAGS);
        String data = directory.resolve("data").toString();
        dev = process("dev", "--output", "json", "--port-base", "0", "--data", data, "--flags", flags.toString())
                .redirectError(ProcessBuilder.Redirect.INHERIT)
                .start();
        try {
            BufferedReader out = dev.inputReader(StandardCharsets.UTF_8);
            JsonNode said = new ObjectMapper().readTree(String.valueOf(out.readLine()));
            control = "http://" + said.at("/control/grpc").asText();
            String[] sidecar = said.at("/sidecars/0/tcp").asText().split(":");
            OpenFeatureAPI api = OpenFeatureAPI.getInstance();
            client = api.getClient("kill");
            client.onProviderConfigurationChanged(details -> changes.add(details.getFlagsChanged()));
            api.setProviderAndWait("kill", new FlagdProvider(FlagdOptions.builder()
                    .resolverType(Config.Resolver.RPC)
                    .host(sidecar[0])
                    .port(Integer.parseInt(sidecar[1]))
                    .cacheType("lru")
                    .deadline(5000)
                    .build()));
        } catch (Exception failure) {
            dev.destroyForcibly();
            throw failure;
        }
    }

    private void keptIsKilled() throws Exception {
        keeps("kept", "two", "new");
        killed("kept", "one", "old");
        decides("kept", "two", "new", "STATIC");
    }

    private void armedIsKilled() throws Exception {
        decides("armed", "two", "new", "DEFAULT");
        decides("armed", "two", "new", "DEFAULT");
        killed("armed", "none", "safe");
        decides("armed", "two", "new", "DEFAULT");
    }

    private void killed(String flag, String value, String variant) throws Exception {
        changes.clear();
        run("kill", flag, "--reason", "provider suite", "--wait", "10s");
        told(flag);
        decides(flag, value, variant, "TARGETING_MATCH");
        decides(flag, value, variant, "TARGETING_MATCH");
        changes.clear();
        run("restore", flag, "--reason", "provider suite", "--wait", "10s");
        told(flag);
    }

    /**
     * Waits until the answer comes from what the provider keeps. A stream of ours begins with the name of every flag, which a provider may hear
     * after the first answer.
     */
    private void keeps(String flag, String value, String variant) {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_S);
        FlagEvaluationDetails<String> details;
        do {
            details = client.getStringDetails(flag, "of the code");
            if (!value.equals(details.getValue()) || !variant.equals(details.getVariant()) || System.nanoTime() > end) {
                throw new AssertionError(flag + ": expected " + value + " of the cache, found " + details);
            }
        } while (!"CACHED".equals(details.getReason()));
    }

    private void decides(String flag, String value, String variant, String reason) {
        FlagEvaluationDetails<String> details = client.getStringDetails(flag, "of the code");
        List<String> expected = List.of(value, variant, reason);
        List<String> found = Stream.of(details.getValue(), details.getVariant(), details.getReason()).map(String::valueOf).toList();
        if (!found.equals(expected)) {
            throw new AssertionError(flag + ": expected " + expected + ", found " + found + " of " + details);
        }
    }

    /** Waits for the event of this flag alone: the one that a stream begins with names every flag, and may be heard late. */
    private void told(String flag) throws InterruptedException {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_S);
        List<String> flags;
        do {
            flags = changes.poll(end - System.nanoTime(), TimeUnit.NANOSECONDS);
            if (flags == null) {
                throw new AssertionError("expected to be told of " + flag + " within " + WAIT_S + " s");
            }
        } while (!flags.equals(List.of(flag)));
    }

    private void scenario(String name, Scenario scenario) {
        try {
            scenario.play();
            passed++;
        } catch (Exception | AssertionError failure) {
            failed++;
            System.out.println("FAIL " + name + "\n  " + failure);
        }
    }

    private void run(String... arguments) throws IOException, InterruptedException {
        List<String> all = new ArrayList<>(List.of(arguments));
        all.addAll(List.of("--output", "json", "--control-plane", control));
        Process process = process(all.toArray(String[]::new)).redirectErrorStream(true).start();
        String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        if (process.waitFor() != 0) {
            throw new IOException(String.join(" ", arguments) + " ended with " + process.exitValue() + ": " + said);
        }
    }

    /** The environment is that of the test without what it says of settings. */
    private ProcessBuilder process(String... arguments) {
        List<String> command = new ArrayList<>(List.of(binary));
        command.addAll(List.of(arguments));
        ProcessBuilder builder = new ProcessBuilder(command);
        builder.environment().keySet().removeIf(name -> name.startsWith("YARDARM_") || name.startsWith("FLAGD_"));
        return builder;
    }

    private void end() throws IOException, InterruptedException {
        OpenFeatureAPI.getInstance().shutdown();
        // SIGTERM.
        dev.destroy();
        if (!dev.waitFor(WAIT_S, TimeUnit.SECONDS)) {
            dev.destroyForcibly();
            throw new IOException("dev did not end within " + WAIT_S + " s of SIGTERM");
        }
        try (Stream<Path> files = Files.walk(directory)) {
            for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
                Files.delete(file);
            }
        }
    }
}
