/**
 * How a Postern policy plugin is written in AssemblyScript. The main class is Plugin; register makes one the module's own. What a
 * plugin sees and may do is declared in plugin.hcl; sdk/ABI.md is the normative text behind this. A whole plugin:
 *
 *     import { Event, Plugin, register, Result, Stage } from "../../assembly";
 *     export * from "../../assembly/module";
 *
 *     class Greet extends Plugin {
 *       greetings: string[] = [];
 *
 *       configure(s: Stage): void {
 *         this.greetings.push(s.config.member("greeting").text);
 *       }
 *
 *       on(e: Event, r: Result): void {
 *         r.setHeader("x-greeting", this.greetings[e.stage]);
 *       }
 *     }
 *
 *     register(new Greet());
 *
 * Reading an event and writing a result take no memory that would have to be collected; strings do, and are. What an event or
 * the host hands out as Bytes or Value is there until the event is over.
 */
export { Bytes } from "./bytes";
export { Answer, Event, EventKind, Phase, Run, Stage } from "./event";
export { Host, HostError, Level, log } from "./host";
export { Action, Fetch, Result } from "./result";
export { Kind, Members, Value } from "./value";
export { Writer } from "./writer";
export { Plugin, register } from "./plugin";
