package yardarm.suite.steps;

import static yardarm.suite.Suite.launchpad;

import dev.openfeature.contrib.providers.flagd.Config;
import dev.openfeature.contrib.providers.flagd.FlagdOptions;
import dev.openfeature.contrib.providers.flagd.FlagdProvider;
import dev.openfeature.sdk.OpenFeatureAPI;
import io.cucumber.java.en.Given;
import io.cucumber.java.en.Then;
import io.cucumber.java.en.When;
import java.util.Locale;
import yardarm.suite.Suite;

public final class ProviderSteps {
    // Nothing listens there.
    private static final int NOBODY = 1;
    // The default is half a second, and little for a machine that does other things at the same time.
    private static final int DEADLINE_MS = 5000;
    // A connection that is lost for a second is back before the grace ends, and one that is lost for six is not.
    private static final int GRACE_S = 4;
    // Without an event for so long, what a stream begins with was heard.
    private static final long QUIET_MS = 300;

    @Given("a {word} flagd provider")
    public void provider(String kind) throws Exception {
        World world = World.now;
        boolean rpc = Suite.resolver == Config.Resolver.RPC;
        FlagdOptions.FlagdOptionsBuilder builder = world.builder
                .resolverType(Suite.resolver)
                .host("localhost")
                .port(launchpad.port(rpc ? "rpc" : "sync"))
                .retryGracePeriod(GRACE_S);
        if (!world.named.contains("deadlineMs")) {
            builder.deadline(DEADLINE_MS);
        }
        String config = "default";
        switch (kind) {
            case "stable" -> {}
            case "unavailable" -> builder.port(NOBODY);
            case "forbidden" -> builder.port(launchpad.port("forbidden"));
            case "socket" -> {
                config = "socket";
                builder.port(NOBODY).socketPath(launchpad.path(rpc ? "evaluation_socket" : "sync_socket"));
            }
            case "ssl" -> {
                config = "ssl";
                builder.tls(true).certPath(launchpad.path("authority"));
            }
            case "metadata" -> config = "metadata";
            case "syncpayload" -> config = "sync-payload";
            default -> throw new IllegalArgumentException("no such provider in this suite: " + kind);
        }
        String target = builder.build().getTargetUri();
        if (target != null) {
            builder.targetUri(target.replace("<port>", String.valueOf(launchpad.port(rpc ? "rpc_target" : "sync_target"))));
        }
        launchpad.ask("start?config=" + config);

        OpenFeatureAPI api = OpenFeatureAPI.getInstance();
        FlagdProvider provider = new FlagdProvider(builder.build());
        if (kind.equals("unavailable") || kind.equals("forbidden")) {
            api.setProvider("suite", provider);
        } else {
            api.setProviderAndWait("suite", provider);
        }
        world.client = api.getClient("suite");
    }

    @When("the connection is lost for {int}s")
    public void lost(int seconds) throws Exception {
        launchpad.ask("restart?seconds=" + seconds);
    }

    @When("the flag was modified")
    public void modified() throws Exception {
        // What was told before is not of this change: a stream of ours begins with the name of every flag, and the provider hands it on in
        // its own time.
        do {
            World.now.events.clear();
            Thread.sleep(QUIET_MS);
        } while (!World.now.events.isEmpty());
        launchpad.ask("change");
    }

    @Then("the client should be in {word} state")
    public void state(String state) {
        Check.same("state of the client", state.toUpperCase(Locale.ROOT), World.now.client.getProviderState().name());
    }
}
