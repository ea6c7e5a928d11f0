Feature: What a page sees of its server

  Our own scenarios: flagd's testbed has none for the providers of browsers.

  Background:
    Given a String-flag with key "changing-flag" and a default value "none"

  @flagd @ofrep
  Scenario: A change comes by itself
    Given a stable flagd provider
    And a change event handler
    When the flag was evaluated with details
    And the flag was modified
    Then after a change event the flag should have another value

  @flagd @ofrep
  Scenario: A page outlives a restart of its server and is told of changes again
    Given a lasting flagd provider
    And a change event handler
    When the flag was evaluated with details
    And the connection is lost for 1s
    And the provider has asked for all flags again
    And the flag was modified
    Then after a change event the flag should have another value

  @ofrep
  Scenario: A page that asks again and again is told that nothing changed, until something does
    Given a polling flagd provider
    And a change event handler
    When the flag was evaluated with details
    And the provider is told that nothing changed
    And the flag was modified
    Then after a change event the flag should have another value
    And the flag should be part of the event payload

  @flagd @ofrep
  Scenario: An object comes whole
    Given a stable flagd provider
    And a Object-flag with key "object-flag" and a default value "{}"
    When the flag was evaluated with details
    Then the resolved details value should be "{"showImages": true, "title": "Check out these pics!", "imagesPerPage": 100 }"
    And the variant should be "template"
    And the reason should be "STATIC"

  @flagd @ofrep
  Scenario Outline: What is not there or of another type is the default of the code
    Given a stable flagd provider
    And a <type>-flag with key "<key>" and a default value "<default>"
    When the flag was evaluated with details
    Then the resolved details value should be "<default>"
    And the reason should be "ERROR"
    And the error-code should be "<code>"

    Examples:
      | key          | type    | default | code           |
      | no-such-flag | String  | mine    | FLAG_NOT_FOUND |
      | string-flag  | Boolean | true    | TYPE_MISMATCH  |
      | boolean-flag | Integer | 7       | TYPE_MISMATCH  |
