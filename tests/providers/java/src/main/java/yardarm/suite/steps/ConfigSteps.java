package yardarm.suite.steps;

import dev.openfeature.contrib.providers.flagd.FlagdOptions;
import io.cucumber.java.en.Given;
import io.cucumber.java.en.Then;
import io.cucumber.java.en.When;
import java.lang.reflect.Method;
import java.util.Arrays;
import java.util.Map;

public final class ConfigSteps {
    // Where the provider's name is not that of flagd's table.
    private static final Map<String, String> NAMES =
            Map.of("resolver", "resolverType", "deadlineMs", "deadline", "keepAliveTime", "keepAlive", "cache", "cacheType");

    @Given("an option {string} of type {string} with value {string}")
    public void option(String option, String type, String value) throws Exception {
        String name = NAMES.getOrDefault(option, option);
        Method setter = Arrays.stream(World.now.builder.getClass().getMethods())
                .filter(method -> method.getName().equals(name) && method.getParameterCount() == 1)
                .findFirst()
                .orElseThrow(() -> new AssertionError("the provider has no option " + option));
        World.now.named.add(option);
        setter.invoke(World.now.builder, Text.as(type, value));
    }

    @Given("an environment variable {string} with value {string}")
    public void variable(String name, String value) throws Exception {
        World.now.environment.putIfAbsent(name, System.getenv(name));
        Environment.put(name, value);
        // The builder reads the environment when it is made.
        World.now.builder = FlagdOptions.builder();
    }

    @When("a config was initialized")
    public void initialize() {
        try {
            World.now.options = World.now.builder.build();
        } catch (IllegalArgumentException refused) {
            World.now.refused = refused;
        }
    }

    @Then("the option {string} of type {string} should have the value {string}")
    public void has(String option, String type, String value) throws Exception {
        String name = NAMES.getOrDefault(option, option);
        Method getter = Arrays.stream(FlagdOptions.class.getMethods())
                .filter(method -> method.getParameterCount() == 0)
                .filter(method -> method.getName().equalsIgnoreCase("get" + name) || method.getName().equalsIgnoreCase("is" + name))
                .findFirst()
                .orElseThrow(() -> new AssertionError("the provider has no option " + option));
        // The table has this word for nothing; a context may have it for a text.
        Object expected = value.equals("null") ? null : Text.as(type, value);
        Check.same("option " + option, expected, getter.invoke(World.now.options));
    }

    @Then("we should have an error")
    public void refused() {
        Check.that(World.now.refused != null, "expected that the provider refuses this, and it did not");
    }
}
