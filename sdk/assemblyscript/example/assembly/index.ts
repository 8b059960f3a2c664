// A whole plugin: it greets the upstream in the caller's name. The README of the SDK explains it.

import { Event, EventKind, Plugin, register, Result, Stage, Writer } from "../../assembly";
export * from "../../assembly/module";

/** The slots of the hook request, in the order of plugin.hcl. */
enum Slot {
  Name, // header x-name
  Model, // attribute model
  To, // argument to
}

/** Keeps the greeting of each stage it is used at. */
class Greet extends Plugin {
  greetings: string[] = [];
  line: Writer = new Writer();

  /** Is called once for each stage, in the order of their numbers. */
  configure(s: Stage): void {
    this.greetings.push(s.config.member("greeting").text);
  }

  /** Is called for each event. */
  on(e: Event, r: Result): void {
    if (e.kind == EventKind.Request) {
      let who = e.header(Slot.Name);
      if (who === null) who = e.value(Slot.To).bytes;
      if (who.length == 0) {
        r.respond(400, "no_name", "Say who you are in the header x-name.");
        return;
      }
      r.setHeader("x-greeting", this.line.clear().put(this.greetings[e.stage]).put(", ").put(who));
    } else if (e.kind == EventKind.Response) {
      r.setHeader("x-seen-by", "greet");
      r.removeHeader("server");
    }
  }
}

register(new Greet());
