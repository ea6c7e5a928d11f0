package yardarm.suite.steps;

import java.util.Objects;

final class Check {
    private Check() {}

    static void same(String what, Object expected, Object found) {
        that(Objects.equals(expected, found), what + ": expected " + expected + ", found " + found);
    }

    static void that(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }
}
