package yardarm.suite;

import io.cucumber.plugin.EventListener;
import io.cucumber.plugin.event.EventPublisher;
import io.cucumber.plugin.event.PickleStepTestStep;
import io.cucumber.plugin.event.Result;
import io.cucumber.plugin.event.Status;
import io.cucumber.plugin.event.TestCase;
import io.cucumber.plugin.event.TestCaseFinished;
import io.cucumber.plugin.event.TestCaseStarted;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.Set;
import java.util.stream.Collectors;

/** Counts scenarios. One that is neither passed nor skipped with a reason is failed, an undefined step included. */
public final class Tally implements EventListener {
    private static final Set<Skip> MET = new HashSet<>();
    private static int passed;
    private static int failed;
    private static int skipped;
    private static Skip current;

    /** Why the scenario that runs is not run, or null. */
    public static Skip current() {
        return current;
    }

    @Override
    public void setEventPublisher(EventPublisher publisher) {
        publisher.registerHandlerFor(TestCaseStarted.class, event -> {
            TestCase scenario = event.getTestCase();
            current = Skip.of(Suite.resolver, scenario.getName() + "\n" + words(scenario));
        });
        publisher.registerHandlerFor(TestCaseFinished.class, event -> finished(event.getTestCase(), event.getResult()));
    }

    private static void finished(TestCase scenario, Result result) {
        if (current != null) {
            skipped++;
            MET.add(current);
            System.out.printf("SKIP %s: %s: %s%n", scenario.getName(), current.words(), current.reason());
        } else if (result.getStatus() == Status.PASSED) {
            passed++;
        } else {
            failed++;
            System.out.printf(
                    "FAIL %s (%s:%d)%n%s%n  %s %s%n",
                    scenario.getName(),
                    Path.of(scenario.getUri()).getFileName(),
                    scenario.getLocation().getLine(),
                    words(scenario),
                    result.getStatus(),
                    result.getError());
        }
    }

    private static String words(TestCase scenario) {
        return scenario.getTestSteps().stream()
                .filter(PickleStepTestStep.class::isInstance)
                .map(step -> "    " + ((PickleStepTestStep) step).getStep().getText())
                .collect(Collectors.joining("\n"));
    }

    static int failed() {
        return failed;
    }

    static String line() {
        return "passed=" + passed + " failed=" + failed + " skipped=" + skipped;
    }

    /** What makes the counts worthless, or null. */
    static String incomplete() {
        for (Skip skip : Skip.all(Suite.resolver)) {
            if (!MET.contains(skip)) {
                return "no scenario has " + skip.words() + ", which was to be skipped";
            }
        }
        return passed + failed == 0 ? "no scenario was run" : null;
    }
}
