@rpc @in-process
Feature: A provider without events over changes and restarts

  Background:
    Given an option "cache" of type "CacheType" with value "disabled"
    And a stable flagd provider
    And a String-flag with key "changing-flag" and a default value "none"

  Scenario: A change reaches the provider
    When the flag was modified
    Then the resolved details value becomes "bar"
    When the flag was modified
    Then the resolved details value becomes "foo"

  Scenario: After a restart it hears of changes again
    When the flag was evaluated with details
    Then the resolved details value should be "foo"
    When the connection is lost for 1s
    Then the resolved details value becomes "foo"
    When the flag was modified
    Then the resolved details value becomes "bar"
    When the flag was modified
    Then the resolved details value becomes "foo"
