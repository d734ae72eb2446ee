/* What was dropped or chosen, as what is sent: scans as they are, loose DICOM files and folders as one tar each.

   A tar is put together of the files themselves, so nothing is read into memory; within it they have numbers for
   names, and what lies beside images on a CD stays where it is. */
(() => {
  "use strict";
  const BLOCK = 512;
  const encoder = new TextEncoder();

  function header(name, size) {
    const block = new Uint8Array(BLOCK);
    const write = (text, at) => block.set(encoder.encode(text), at);
    write(name, 0);
    write("0000644\0" + "0000000\0" + "0000000\0", 100);
    write(size.toString(8).padStart(11, "0") + "\0" + "00000000000\0" + "        " + "0", 124);
    write("ustar\0" + "00", 257);
    const sum = block.reduce((total, byte) => total + byte, 0);
    write(sum.toString(8).padStart(6, "0") + "\0 ", 148);
    return block;
  }

  function tar(files, name) {
    const parts = [];
    files.forEach((file, number) => {
      parts.push(header(String(number), file.size), file, new Uint8Array((BLOCK - (file.size % BLOCK)) % BLOCK));
    });
    parts.push(new Uint8Array(2 * BLOCK));
    return new File(parts, `${name}.tar`);
  }

  /* Whether a file may be DICOM: by its name, by having no suffix, or by how it begins. */
  async function possible(file) {
    if (/\.(dcm|ima)$/i.test(file.name) || !file.name.includes(".")) return file.size > 132;
    return (await file.slice(128, 132).text()) === "DICM";
  }

  async function entries(entry, found) {
    if (entry.name.startsWith(".")) return;
    if (entry.isFile) {
      found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
      return;
    }
    const reader = entry.createReader();
    for (;;) { // a hundred at a time, until there are none
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) return;
      for (const one of some) await entries(one, found);
    }
  }

  /* [{name, files, folder}]: each dropped folder, and what lay loose. To be called while the event lasts. */
  async function dropped(transfer) {
    const loose = [...transfer.files];
    const given = [...transfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
    if (!given.some((entry) => entry.isDirectory)) return [{ name: "", files: loose }];
    const groups = [{ name: "", files: [] }];
    for (const entry of given) {
      const files = [];
      await entries(entry, files);
      if (entry.isDirectory) groups.push({ name: entry.name, files, folder: true });
      else groups[0].files.push(...files);
    }
    return groups;
  }

  function chosen(list) {
    const files = [...list].filter((file) => !file.webkitRelativePath.split("/").some((part) => part.startsWith(".")));
    return [{ name: files.length ? files[0].webkitRelativePath.split("/")[0] : "", files, folder: true }];
  }

  async function sendable(groups, { apart, volumes, slices }) {
    const alone = (file) => apart.some((suffix) => file.name.toLowerCase().endsWith(suffix));
    const result = [];
    for (const group of groups) {
      const others = group.files.filter((file) => !alone(file));
      result.push(...group.files.filter(alone));
      if (!volumes) {
        result.push(...others.filter((file) => !group.folder || /\.dcm$/i.test(file.name)));
      } else if (!group.folder && others.length < 2) {
        result.push(...others);
      } else {
        const kept = [];
        const unknown = [];
        for (const file of others) ((await possible(file)) ? kept : unknown).push(file);
        if (kept.length) result.push(tar(kept, group.name || slices));
        if (!group.folder) result.push(...unknown); // each gets its refusal
      }
    }
    return result;
  }

  window.scanwiseFolder = { dropped, chosen, sendable };
})();
