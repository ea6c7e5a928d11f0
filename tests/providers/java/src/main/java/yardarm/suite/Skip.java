package yardarm.suite;

import dev.openfeature.contrib.providers.flagd.Config;
import java.util.List;

/** A scenario that is not run, by its name and words of its steps, where no tag tells it apart. */
public record Skip(String scenario, String words, String reason) {
    static List<Skip> all(Config.Resolver resolver) {
        return List.of();
    }

    static Skip of(Config.Resolver resolver, String scenario, String words) {
        return all(resolver).stream()
                .filter(skip -> skip.scenario.equals(scenario) && words.contains(skip.words))
                .findFirst()
                .orElse(null);
    }
}
