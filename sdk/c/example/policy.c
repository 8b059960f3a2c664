// greet greets the upstream in the caller's name, and leaves its own name on the response.
#include "postern.h"

// The slots of hook "request", in the order of plugin.hcl.
enum {
	NAME,   // header x-name
	MODEL,  // attribute model
	TO,     // argument to
};

// A stage keeps its greeting for as long as the instance lives.
static void configure(postern_stage *s, postern_result *r) {
	postern_string *greeting = (postern_string *)postern_alloc(s->host, sizeof *greeting);
	if (greeting) *greeting = postern_keep(s->host, postern_text(postern_member(s->config, POSTERN("greeting"))));
	if (!greeting) postern_fail(r, POSTERN("out of memory"));
	s->data = greeting;
}

static void on(const postern_event *e, postern_result *r) {
	if (e->kind == POSTERN_EVENT_RESPONSE) {
		postern_set_header(r, POSTERN("x-seen-by"), POSTERN("greet"));
		postern_remove_header(r, POSTERN("server"));
		return;
	}
	if (e->kind != POSTERN_EVENT_REQUEST) return;
	postern_string who = postern_header(e, NAME);
	if (!postern_present(who)) who = postern_text(postern_value_in(e, TO));
	if (who.len == 0) {
		postern_respond(r, 400, POSTERN("no_name"), POSTERN("Say who you are in the header x-name."));
		return;
	}
	postern_set_header(r, POSTERN("x-greeting"), *(postern_string *)e->data);
	postern_append(r, POSTERN(", "));
	postern_append(r, who);
}

POSTERN_PLUGIN(configure, on)
