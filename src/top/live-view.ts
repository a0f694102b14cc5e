/** What the user sees and steers on a terminal: the newest picture, or the one at the moment of pausing. */
import type { DiskView } from "./disk-watcher.ts";
import type { ScreenSize } from "./picture.ts";
import {
  helpPicture,
  type Picture,
  type Screen,
  SORT_ORDERS,
  type SortOrder,
  screenPicture,
} from "./picture.ts";
import { lineText } from "./styled-line.ts";

interface LiveViewOptions {
  readonly intervalSeconds: number;
  readonly isColoured: boolean;
  readonly size: () => ScreenSize;
  readonly draw: (lines: readonly string[]) => void;
  readonly quit: () => void;
}

/** One sample of all disks. */
export interface Moment {
  readonly disks: readonly DiskView[];
  readonly clock: string;
  readonly note: string;
}

export class LiveView {
  readonly #options: LiveViewOptions;
  #newest: Moment = { disks: [], clock: "", note: "" };
  #paused: Moment | undefined;
  #sort: SortOrder = "queue";
  #isHelp = false;
  #scroll = 0;
  #scrollMax = 0;

  constructor(options: LiveViewOptions) {
    this.#options = options;
  }

  show(moment: Moment): void {
    this.#newest = moment;
    this.redraw();
  }

  redraw(): void {
    const { isColoured, size, draw } = this.#options;
    const now = size();
    const { lines, scrollMax } = this.#screen(now);
    this.#scrollMax = scrollMax;
    this.#scroll = Math.min(this.#scroll, scrollMax);
    draw(lines.map((line) => lineText(line, now.columns, { isColoured })));
  }

  /** Does what a key of `keysOf` asks for. */
  press(key: string): void {
    const isQuit = key === "q" || key === "Q" || key === "ctrl-c" || key === "ctrl-d";
    if (isQuit) {
      this.#options.quit();
      return;
    }
    if (this.#isHelp) {
      this.#isHelp = false;
    } else {
      this.#steer(key);
    }
    this.redraw();
  }

  // --- internal ---

  #screen(size: ScreenSize): Screen {
    const moment = this.#paused ?? this.#newest;
    const notes = [...(this.#paused === undefined ? [] : ["paused"]), moment.note];
    const picture: Picture = {
      disks: moment.disks,
      intervalSeconds: this.#options.intervalSeconds,
      clock: moment.clock,
      sort: this.#sort,
      note: notes.filter((note) => note !== "").join(", "),
    };
    return this.#isHelp ? helpPicture(picture, size) : screenPicture(picture, size, this.#scroll);
  }

  #steer(key: string): void {
    const page = Math.max(1, this.#options.size().rows - 5);
    switch (key) {
      case "p":
      case " ":
        this.#paused = this.#paused === undefined ? this.#newest : undefined;
        break;
      case "s":
        this.#sort =
          SORT_ORDERS[(SORT_ORDERS.indexOf(this.#sort) + 1) % SORT_ORDERS.length] ?? "queue";
        break;
      case "h":
      case "?":
        this.#isHelp = true;
        break;
      case "up":
      case "k":
        this.#scrollBy(-1);
        break;
      case "down":
      case "j":
        this.#scrollBy(1);
        break;
      case "page up":
        this.#scrollBy(-page);
        break;
      case "page down":
        this.#scrollBy(page);
        break;
    }
  }

  #scrollBy(lines: number): void {
    this.#scroll = Math.max(0, Math.min(this.#scroll + lines, this.#scrollMax));
  }
}
