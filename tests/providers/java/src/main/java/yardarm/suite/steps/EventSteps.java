package yardarm.suite.steps;

import dev.openfeature.sdk.ProviderEvent;
import io.cucumber.java.en.Given;
import io.cucumber.java.en.Then;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

public final class EventSteps {
    private static final Map<String, ProviderEvent> EVENTS = Map.of(
            "ready", ProviderEvent.PROVIDER_READY,
            "stale", ProviderEvent.PROVIDER_STALE,
            "error", ProviderEvent.PROVIDER_ERROR,
            "change", ProviderEvent.PROVIDER_CONFIGURATION_CHANGED);
    // Reached only when a scenario fails; the longest loss of a connection is 8 s.
    private static final int WAIT_MS = 20_000;

    @Given("a {word} event handler")
    public void listen(String kind) {
        World world = World.now;
        world.client.on(EVENTS.get(kind), details -> {
            World.Event event = new World.Event(kind, details);
            world.heard.add(event);
            world.events.add(event);
        });
    }

    @Then("a {word} event was fired")
    @Then("the {word} event handler should have been executed")
    public void fired(String kind) throws InterruptedException {
        firedWithin(kind, WAIT_MS);
    }

    @Then("the {word} event handler should have been executed within {int}ms")
    public void firedWithin(String kind, int milliseconds) throws InterruptedException {
        long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(milliseconds);
        while (true) {
            World.Event event = World.now.events.poll(end - System.nanoTime(), TimeUnit.NANOSECONDS);
            if (event == null) {
                throw new AssertionError("expected " + kind + " within " + milliseconds + " ms, found " + World.now.all());
            }
            if (event.kind().equals(kind)) {
                World.now.last = event;
                return;
            }
        }
    }

    @Then("the {word} event handler should not have been executed")
    public void notFired(String kind) {
        List<World.Event> heard = World.now.all();
        Check.that(heard.stream().noneMatch(event -> event.kind().equals(kind)), "expected no " + kind + ", found " + heard);
    }

    @Then("the flag should be part of the event payload")
    public void named() {
        Check.that(
                World.now.last.details().getFlagsChanged().contains(World.now.flag),
                "expected " + World.now.flag + " in " + World.now.last.details().getFlagsChanged());
    }
}
