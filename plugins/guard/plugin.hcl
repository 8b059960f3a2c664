abi     = 1
version = "0.1.0"
summary = "Rules for prompts: size, patterns that are denied or required, and the usual words of a jailbreak."

hook "request" {
  sees {
    headers = ["content-type", "content-encoding"]
    body    = buffer("10MiB")
  }

  argument "max_characters" {
    type    = number
    default = 0
    summary = "Most characters of all texts together; 0 is no limit."
  }

  argument "max_messages" {
    type    = number
    default = 0
    summary = "Most messages, that is objects with a role; 0 is no limit."
  }

  argument "roles" {
    type    = list(string)
    default = ["system", "developer", "user", "assistant", "model", "tool", "function"]
    summary = "Roles a message may have."
  }

  argument "jailbreak" {
    type    = string
    default = "off"
    one_of  = ["off", "flag", "deny"]
    summary = "What happens when a text that the caller's user may have written holds the usual words of a jailbreak."
  }

  argument "on_invalid" {
    type    = string
    default = "deny"
    one_of  = ["deny", "pass"]
    summary = "What happens to a body that is no JSON text. deny answers 400 unreadable_body."
  }

  block "rule" {
    labels  = ["name"]
    repeat  = true
    summary = "A pattern for the texts of a request. Rules are tried in the order they are written."

    argument "pattern" {
      type     = regex
      required = true
      summary  = "What is looked for, in RE2."
    }

    argument "action" {
      type    = string
      default = "deny"
      one_of  = ["deny", "flag", "allow", "require"]
      summary = "With a text that matches: deny refuses the request, flag notes the rule's name, allow skips the rules behind and the jailbreak words for that text. require refuses a request in which no text matches."
    }

    argument "roles" {
      type    = list(string)
      default = ["user", "tool", "function", ""]
      summary = "Whose texts: the role of the message they stand in, \"\" for texts outside of any."
    }

    argument "message" {
      type    = string
      default = "The request is against a rule of this service."
      summary = "What the caller reads."
    }
  }
}
