package yardarm.suite;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** What starts, stops and changes the server, and where that listens. */
public final class Launchpad {
    private final JsonNode ports;
    private final HttpClient http = HttpClient.newHttpClient();

    Launchpad(JsonNode ports) {
        this.ports = ports;
    }

    public int port(String name) {
        return node(name).asInt();
    }

    public String path(String name) {
        return node(name).asText();
    }

    /** {@code "start?config=default"}, as the testbed has it. */
    public void ask(String what) throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(URI.create("http://localhost:" + port("launchpad") + "/" + what)).build();
        HttpResponse<String> response = http.send(request, HttpResponse.BodyHandlers.ofString());
        if (response.statusCode() != 200) {
            throw new IOException("the launchpad answered " + what + " with " + response.statusCode() + ": " + response.body());
        }
    }

    private JsonNode node(String name) {
        JsonNode node = ports.get(name);
        if (node == null) {
            throw new IllegalStateException("the launchpad names no " + name + " in " + ports);
        }
        return node;
    }
}
