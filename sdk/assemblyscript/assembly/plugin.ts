import { Event, Stage } from "./event";
import { Result } from "./result";

/**
 * A policy. The gateway makes several instances of a module, each with a plugin of its own, and gives any of them any event: what has
 * to outlive an event travels as Result.carry or in the host's state. Calls on one instance never overlap.
 */
export abstract class Plugin {
  /**
   * Is called once for each stage the plugin is used at, with Stage.number 0, 1, 2 ..., before any event. Stage.fail refuses the
   * configuration.
   */
  configure(s: Stage): void {}

  /**
   * Is called for each event of a stage. An abort (an error that is thrown, a failed assertion) is logged with its place and fails
   * the event.
   */
  abstract on(e: Event, r: Result): void;
}

/** The module's plugin. */
export let registered: Plugin | null = null;

/** Makes p the module's plugin. It is called once, at the top level of the module's main file. */
export function register(p: Plugin): void {
  registered = p;
}
