package yardarm.suite.steps;

import dev.openfeature.contrib.providers.flagd.FlagdOptions;
import dev.openfeature.sdk.Client;
import dev.openfeature.sdk.EventDetails;
import dev.openfeature.sdk.FlagEvaluationDetails;
import dev.openfeature.sdk.OpenFeatureAPI;
import dev.openfeature.sdk.Value;
import io.cucumber.java.After;
import io.cucumber.java.Before;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.LinkedBlockingQueue;
import yardarm.suite.Tally;

/** What the steps of one scenario know of each other; scenarios run one after the other. */
public final class World {
    record Event(String kind, EventDetails details) {}

    static World now;

    FlagdOptions.FlagdOptionsBuilder builder = FlagdOptions.builder();
    final Set<String> named = new HashSet<>();
    FlagdOptions options;
    Exception refused;
    final Map<String, String> environment = new HashMap<>();

    Client client;
    String type;
    String flag;
    Object otherwise;
    String targetingKey;
    final Map<String, Value> attributes = new HashMap<>();
    FlagEvaluationDetails<?> details;

    /** What nothing has waited for yet, and all that was heard. */
    final BlockingQueue<Event> events = new LinkedBlockingQueue<>();
    final Queue<Event> heard = new ConcurrentLinkedQueue<>();
    Event last;

    List<Event> all() {
        return List.copyOf(heard);
    }

    @Before(order = 0)
    public void begin() {
        now = new World();
        if (Tally.current() != null) {
            throw new IllegalStateException("not run: " + Tally.current().reason());
        }
    }

    @After
    public void end() throws Exception {
        OpenFeatureAPI.getInstance().shutdown();
        for (Map.Entry<String, String> variable : now.environment.entrySet()) {
            Environment.put(variable.getKey(), variable.getValue());
        }
    }
}
