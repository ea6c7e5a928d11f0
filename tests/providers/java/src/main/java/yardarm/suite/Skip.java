package yardarm.suite;

import dev.openfeature.contrib.providers.flagd.Config;
import java.util.List;
import java.util.stream.Stream;

/** A scenario that is not run: all the words are in its name and steps. Where a tag tells it apart, {@link Suite} leaves the tag out. */
public record Skip(List<String> words, String reason) {
    private static final String NO_OPTION = "the provider has no such option";
    private static final String UNREAD = "the provider does not know this variable";
    private static final String OLDER_DEFAULT = "the provider has the default of before testbed 3.10 in its own code; the server is not asked";
    private static final String FIRST_GENERATION = "the provider speaks evaluation.v1, in which no value means the zero value";
    private static final String DISABLED_IS_MISSING = "in process the provider takes a disabled flag for a missing one";

    private static final List<Skip> EVERYWHERE = List.of(
            of(NO_OPTION, "fatalStatusCodes"),
            of(NO_OPTION, "retryBackoffMaxMs"),
            of(OLDER_DEFAULT, "Default Config", "retryGracePeriod"));
    private static final List<Skip> RPC = List.of(
            of("in RPC mode the provider sends no selector", "flags/allFlags.json"),
            of(FIRST_GENERATION, "disabled-string-flag"),
            of(FIRST_GENERATION, "disabled-integer-flag"),
            of(FIRST_GENERATION, "disabled-float-flag"));
    private static final List<Skip> IN_PROCESS = List.of(
            of(UNREAD, "env-providerId"),
            of(UNREAD, "FLAGD_SYNC_PORT", "special In-process case"),
            of(UNREAD, "FLAGD_SYNC_PORT takes priority"),
            of(DISABLED_IS_MISSING, "Evaluating a disabled flag"),
            of(DISABLED_IS_MISSING, "flags/allFlags.json"),
            of("the provider knows a small v in front of a version only", "with value \"V1.0.0\""),
            of("the provider takes weights that are all zero for an error", "fractional with all-zero bucket weights"));

    private static Skip of(String reason, String... words) {
        return new Skip(List.of(words), reason);
    }

    static List<Skip> all(Config.Resolver resolver) {
        List<Skip> more = resolver == Config.Resolver.RPC ? RPC : IN_PROCESS;
        return Stream.concat(EVERYWHERE.stream(), more.stream()).toList();
    }

    /** The reason not to run a scenario of this text, or null. */
    static Skip of(Config.Resolver resolver, String text) {
        return all(resolver).stream().filter(skip -> skip.words.stream().allMatch(text::contains)).findFirst().orElse(null);
    }
}
