package yardarm.suite.steps;

import com.fasterxml.jackson.core.JsonProcessingException;
import dev.openfeature.sdk.ErrorCode;
import dev.openfeature.sdk.EvaluationContext;
import dev.openfeature.sdk.ImmutableContext;
import dev.openfeature.sdk.ImmutableStructure;
import dev.openfeature.sdk.Value;
import io.cucumber.datatable.DataTable;
import io.cucumber.java.en.Given;
import io.cucumber.java.en.Then;
import io.cucumber.java.en.When;
import java.util.Map;

public final class FlagSteps {
    @Given("^a (\\w+)-flag with key \"(.*)\" and a default value \"(.*)\"$")
    public void flag(String type, String key, String otherwise) throws JsonProcessingException {
        World.now.type = type;
        World.now.flag = key;
        World.now.otherwise = Text.as(type, otherwise);
    }

    @Given("^a context containing a key \"(.*)\", with type \"(.*)\" and with value \"(.*)\"$")
    public void context(String key, String type, String text) throws Exception {
        Object value = Text.as(type, text);
        World.now.attributes.put(key, value instanceof Value ready ? ready : new Value(value));
    }

    @Given("a context containing a targeting key with value {string}")
    public void targetingKey(String key) {
        World.now.targetingKey = key;
    }

    @Given("a context containing a nested property with outer key {string} and inner key {string}, with value {string}")
    public void nested(String outer, String inner, String text) {
        World.now.attributes.put(outer, new Value(new ImmutableStructure(Map.of(inner, new Value(text)))));
    }

    @When("the flag was evaluated with details")
    public void evaluate() {
        World world = World.now;
        EvaluationContext context = new ImmutableContext(world.targetingKey, world.attributes);
        world.details = switch (world.type) {
            case "Boolean" -> world.client.getBooleanDetails(world.flag, (Boolean) world.otherwise, context);
            case "String" -> world.client.getStringDetails(world.flag, (String) world.otherwise, context);
            case "Integer" -> world.client.getIntegerDetails(world.flag, (Integer) world.otherwise, context);
            case "Float" -> world.client.getDoubleDetails(world.flag, (Double) world.otherwise, context);
            case "Object" -> world.client.getObjectDetails(world.flag, (Value) world.otherwise, context);
            default -> throw new IllegalArgumentException("no such flag in this suite: " + world.type);
        };
    }

    @Then("^the resolved details value should be \"(.*)\"$")
    public void value(String text) throws JsonProcessingException {
        Check.same("value, with " + World.now.details, Text.as(World.now.type, text), World.now.details.getValue());
    }

    @Then("the variant should be {string}")
    public void variant(String variant) {
        Check.same("variant", variant, World.now.details.getVariant());
    }

    @Then("the reason should be {string}")
    public void reason(String reason) {
        Check.same("reason, with " + World.now.details, reason, World.now.details.getReason());
    }

    @Then("the error-code should be {string}")
    public void error(String code) {
        Check.same("error", code.isEmpty() ? null : ErrorCode.valueOf(code), World.now.details.getErrorCode());
    }

    @Then("the resolved metadata is empty")
    public void noMetadata() {
        Check.same("metadata", Map.of(), World.now.details.getFlagMetadata().asUnmodifiableMap());
    }

    @Then("the resolved metadata should contain")
    public void metadata(DataTable table) throws JsonProcessingException {
        for (Map<String, String> row : table.asMaps()) {
            Object expected = Text.as(row.get("metadata_type"), row.get("value"));
            Check.same(row.get("key"), expected, World.now.details.getFlagMetadata().asUnmodifiableMap().get(row.get("key")));
        }
    }
}
