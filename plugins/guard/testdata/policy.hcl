policy "prompts" {
  request "guard" {
    config {
      max_characters = 200000
      max_messages   = 200
      jailbreak      = "flag"

      rule "code_names" {
        pattern = "(?i)project (swan|heron)"
        message = "This service does not speak of unreleased products."
      }

      rule "medical" {
        pattern = "(?i)\\b(diagnosis|dosage)\\b"
        action  = "flag"
      }
    }
  }
}
