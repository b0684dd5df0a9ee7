//! Python's own prompt: it raises an audit event when it runs what was entered, and the line editor's history has it.

use std::path::Path;

use super::quoted;

pub(super) fn startup(log: &Path) -> String {
    // A path in single quotes reads the same in both languages: temporary directories have no quotes in their names.
    let log = quoted(&log.display().to_string());
    format!(
        r#"def _weir():
    import sys, readline
    seen = [readline.get_current_history_length()]

    def hook(event, arguments):
        if event != "exec" or getattr(arguments[0], "co_filename", "") != "<stdin>":
            return
        now = readline.get_current_history_length()
        lines = [readline.get_history_item(n + 1) for n in range(seen[0], now)]
        seen[0] = now
        with open({log}, "a") as log:
            log.write("R\x1fpython\x1f" + "\n".join(lines) + "\x1e")

    sys.addaudithook(hook)


_weir()
del _weir
"#
    )
}
