/* Outlines of brain structures over the viewer's planes, and the name of what lies at the cross-hairs.
 *
 * The server sends one box of the shown grid with a number a voxel, FreeSurfer's; a structure has one number, or one
 * on each side. A line runs half-way between voxels that belong to a structure and those that do not.
 */
(() => {
  "use strict";
  const KEPT = "scanwise.outlines"; // the choice: "off", "all", or a structure
  // Of a cell's four corners (1: upper left, 2: upper right, 4: lower right, 8: lower left) those inside →
  // the edges between which lines run (0: top, 1: right, 2: bottom, 3: left).
  const LINES = [[], [3, 0], [0, 1], [3, 1], [1, 2], [3, 0, 1, 2], [0, 2], [3, 2], [2, 3], [2, 0], [0, 1, 2, 3], [2, 1],
    [1, 3], [1, 0], [0, 3], []];
  const EDGES = [[0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5]]; // their middles, across and down

  class Outlines {
    constructor(viewer, unpack) {
      this.viewer = viewer;
      this.unpack = unpack;
      this.box = null; // what the server sent
      this.select = viewer.find("outlines");
      const kept = localStorage.getItem(KEPT);
      this.select.value = [...this.select.options].some((option) => option.value === kept) ? kept : "off";
      this.select.onchange = () => {
        localStorage.setItem(KEPT, this.select.value);
        this.ask();
        viewer.draw();
      };
      viewer.find("outlines-go").onclick = () => this.go();
      this.ask();
    }

    get on() { return this.select.value !== "off"; }

    /** Fetch the box the first time that it is wanted. */
    async ask() {
      const { viewer } = this;
      const said = viewer.find("outlines-said");
      for (const part of ["here", "key", "go"]) viewer.find(`outlines-${part}`).hidden = !this.on;
      this.key();
      if (!this.on || this.asked) return;
      this.asked = true;
      said.textContent = viewer.texts["outlines.working"];
      try {
        this.box = await this.unpack(`/results/${viewer.key}/outlines`);
        this.owner = new Uint8Array(256); // number → which structure, from 1
        this.box.structures.forEach(({ numbers }, place) => numbers.forEach((n) => { this.owner[n] = place + 1; }));
        said.textContent = "";
        viewer.section.dataset.outlines = "ready";
        viewer.draw();
      } catch (error) {
        this.asked = false;
        said.textContent = `${viewer.texts["outlines.failed"]} ${error.message}`;
      }
    }

    /** The colours and names of what is outlined. */
    key() {
      const shown = [...this.select.options].filter(({ value, dataset }) => dataset.colour && this.wants(value));
      this.viewer.find("outlines-key").replaceChildren(...shown.map((option) => {
        const [entry, swatch] = [document.createElement("span"), document.createElement("i")];
        swatch.style.background = option.dataset.colour;
        entry.append(swatch, option.textContent);
        return entry;
      }));
    }

    wants(name) { return this.select.value === "all" || this.select.value === name; }

    /** The number at a place of the shown grid, 0 outside the box. */
    at([x, y, z]) {
      const { start, shape, data } = this.box;
      const [i, j, k] = [x - start[0], y - start[1], z - start[2]];
      const inside = i >= 0 && j >= 0 && k >= 0 && i < shape[0] && j < shape[1] && k < shape[2];
      return inside ? data[(i * shape[1] + j) * shape[2] + k] : 0;
    }

    /** Move to the middle of the chosen structure's left part, of the hippocampus where all are shown. */
    go() {
      if (!this.box) return;
      const name = this.select.value === "all" ? "hippocampus" : this.select.value;
      const chosen = this.box.structures.find((structure) => structure.name === name);
      const { start, shape, data } = this.box;
      const sums = [0, 0, 0];
      let count = 0;
      for (let at = 0; chosen && at < data.length; at++) {
        if (data[at] !== chosen.numbers[0]) continue;
        sums[0] += Math.floor(at / (shape[1] * shape[2]));
        sums[1] += Math.floor(at / shape[2]) % shape[1];
        sums[2] += at % shape[2];
        count += 1;
      }
      if (count) this.viewer.place(sums.map((sum, axis) => start[axis] + Math.round(sum / count)));
    }

    /** Which structure each pixel of a pane's slice belongs to, one pixel wider on every side; rows from the top. */
    slice(pane) {
      const [wide, tall] = [pane.width + 2, pane.height + 2];
      const owners = new Uint8Array(wide * tall);
      const place = [0, 0, 0];
      place[pane.cuts] = this.viewer.at[pane.cuts];
      const [from, reach] = [this.box.start, this.box.shape];
      const depth = place[pane.cuts] - from[pane.cuts];
      if (depth < 0 || depth >= reach[pane.cuts]) return owners;
      for (let up = 0; up < reach[pane.down]; up++) {
        place[pane.down] = from[pane.down] + up;
        const row = (pane.height - place[pane.down]) * wide + 1;
        for (let across = 0; across < reach[pane.across]; across++) {
          place[pane.across] = from[pane.across] + across;
          const column = pane.turned ? pane.width - 1 - place[pane.across] : place[pane.across];
          owners[row + column] = this.owner[this.at(place)];
        }
      }
      return owners;
    }

    draw(pane, context) {
      if (!this.on || !this.box) return;
      const owners = this.slice(pane);
      const wide = pane.width + 2;
      const [stepX, stepY] = [pane.canvas.width / pane.width, pane.canvas.height / pane.height];
      const paths = this.box.structures.map(() => null);
      for (let at = 0; at + wide + 1 < owners.length; at++) {
        if (at % wide === wide - 1) continue;
        const corners = [owners[at], owners[at + 1], owners[at + wide + 1], owners[at + wide]];
        if (corners.every((owner) => owner === corners[0])) continue;
        for (const owner of new Set(corners)) {
          if (!owner || !this.wants(this.box.structures[owner - 1].name)) continue;
          const lines = LINES[corners.reduce((sum, each, corner) => sum + (each === owner ? 1 << corner : 0), 0)];
          const path = paths[owner - 1] || (paths[owner - 1] = new Path2D());
          const [x, y] = [(at % wide) - 0.5, Math.floor(at / wide) - 0.5];
          lines.forEach((edge, n) => {
            const to = [(x + EDGES[edge][0]) * stepX, (y + EDGES[edge][1]) * stepY];
            if (n % 2) path.lineTo(...to);
            else path.moveTo(...to);
          });
        }
      }
      const thick = Math.min(2, window.devicePixelRatio || 1);
      context.lineCap = "round";
      paths.forEach((path, place) => {
        if (!path) return;
        context.lineWidth = 2.6 * thick;
        context.strokeStyle = "rgba(0, 0, 0, 0.35)"; // so that light lines stand out on light tissue
        context.stroke(path);
        context.lineWidth = 1.5 * thick;
        context.strokeStyle = this.box.structures[place].colour;
        context.stroke(path);
      });
    }

    /** Say what lies at the cross-hairs. */
    tell() {
      if (!this.on || !this.box) return;
      const { texts } = this.viewer;
      const number = this.at(this.viewer.at);
      const found = this.box.structures.find(({ numbers }) => numbers.includes(number));
      let words = texts["outlines.nothing"];
      if (found) {
        const name = texts[`structure.${found.name}`];
        const side = found.numbers.length > 1 ? (number === found.numbers[0] ? "left" : "right") : null;
        words = side ? texts[`outlines.${side}`].replace("{name}", name) : name;
      }
      const line = texts["outlines.here"].replace("{name}", words);
      const here = this.viewer.find("outlines-here");
      if (here.textContent !== line) here.textContent = line;
    }
  }

  window.scanwiseOutlines = Outlines;
})();
