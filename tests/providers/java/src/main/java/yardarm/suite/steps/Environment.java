package yardarm.suite.steps;

import java.lang.reflect.Field;
import java.util.Map;

/** Sets what {@code System.getenv} answers, for which Java has no way; `run` opens {@code java.util} for it. */
final class Environment {
    private Environment() {}

    @SuppressWarnings("unchecked")
    static void put(String name, String value) throws ReflectiveOperationException {
        Map<String, String> environment = System.getenv();
        Field inner = environment.getClass().getDeclaredField("m");
        inner.setAccessible(true);
        Map<String, String> open = (Map<String, String>) inner.get(environment);
        if (value == null) {
            open.remove(name);
        } else {
            open.put(name, value);
        }
    }
}
