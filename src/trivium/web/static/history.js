// Undo and redo over states that compare by their JSON.

export class History {
  #past = [];
  #future = [];

  /** @param {unknown} state the one that undoing everything leads back to */
  constructor(state) {
    this.state = state;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  record(state) {
    if (JSON.stringify(state) === JSON.stringify(this.state)) return;
    this.#past.push(this.state);
    this.#future = [];
    this.state = state;
  }

  undo() {
    if (!this.canUndo) return null;
    this.#future.push(this.state);
    this.state = this.#past.pop();
    return this.state;
  }

  redo() {
    if (!this.canRedo) return null;
    this.#past.push(this.state);
    this.state = this.#future.pop();
    return this.state;
  }
}
