package yardarm.suite.steps;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.openfeature.contrib.providers.flagd.Config;
import dev.openfeature.sdk.Value;
import java.util.Locale;

/** The text of a scenario as a value of the type that it names. */
final class Text {
    private Text() {}

    static Object as(String type, String text) throws JsonProcessingException {
        return switch (type) {
            case "String" -> text;
            case "Boolean" -> Boolean.parseBoolean(text.toLowerCase(Locale.ROOT));
            case "Integer" -> integer(text);
            case "Long" -> Long.parseLong(text);
            case "Float" -> Double.parseDouble(text);
            case "Object" -> Value.objectToValue(new ObjectMapper().readValue(text, Object.class));
            case "CacheType" -> text.toLowerCase(Locale.ROOT);
            case "ResolverType" -> Config.Resolver.valueOf(text.toUpperCase(Locale.ROOT).replace('-', '_'));
            default -> throw new IllegalArgumentException("no such type in this suite: " + type);
        };
    }

    /** An int is what a flag has; a context may have more, and on the wire it is a double in either case. */
    private static Object integer(String text) {
        long number = Long.parseLong(text);
        if (number == (int) number) {
            return (int) number;
        }
        return (double) number;
    }
}
