/* Opens the page's session. The server may call the functions of `scanwise` by name, and nothing else: PyWebIO
   would run whatever script it is sent, which the page's content policy does not allow. */
(() => {
  "use strict";
  const CALL = /^scanwise\.([a-z]+)\(([a-z, ]*)\)$/; // such as scanwise.shown(name)

  async function call({ task_id, spec }) {
    let value = null;
    try {
      const [, name, names] = CALL.exec(spec.code);
      const values = names.split(",").map((key) => key.trim()).filter(Boolean).map((key) => spec.args[key]);
      value = await window.scanwise[name](...values);
    } catch (error) {
      console.error(`the server asked for ${String(spec.code).slice(0, 80)}: ${error}`);
    }
    if (spec.eval) {
      WebIO._state.CurrentSession.send_message({ event: "js_yield", task_id, data: value === undefined ? null : value });
    }
  }

  WebIO.startWebIOClient({
    output_container_elem: $("#markdown-body"),
    input_container_elem: $("#input-cards"),
    backend_address: "",
    app_name: "index",
    protocol: "ws",
    runtime_config: { debug: false, outputAnimation: false, httpPullInterval: 1000 },
  });
  const session = WebIO._state.CurrentSession;
  const others = session._on_server_message;
  session.on_server_message((message) => (message.command === "run_script" ? call(message) : others(message)));
})();
