//! `telos plugins list`: the plugins found, without executing any of them.

use std::fmt::Write as _;

use plugin_api_load::PluginInfo;
use serde_json::{Value, json};

use super::table::{contract, entry_json, table};
use crate::plugins::Registry;

pub(super) fn as_json(registry: &Registry) -> Value {
    let entries = |list: &[PluginInfo]| list.iter().map(entry_json).collect::<Vec<_>>();
    let broken = |b: &crate::plugins::registry::Broken| json!({"path": b.path.to_string_lossy(), "reason": b.reason});
    json!({
        "plugins": entries(registry.plugins()),
        "shadowed": entries(registry.shadowed()),
        "broken": registry.broken().iter().map(broken).collect::<Vec<_>>(),
        "folders": registry.folders().iter().map(|f| f.to_string_lossy()).collect::<Vec<_>>(),
    })
}

pub(super) fn as_text(registry: &Registry) -> String {
    let mut rows = vec![["KIND", "ID", "VERSION", "CONTRACT", "FILE"].map(String::from)];
    rows.extend(registry.plugins().iter().map(|p| {
        let file = p.path.display().to_string();
        [p.kind.clone(), p.id.clone(), p.version.clone(), contract(p), file]
    }));
    let mut text = if rows.len() > 1 { table(&rows) } else { "no plugins found\n".to_owned() };
    for plugin in registry.plugins() {
        if let Err(error) = plugin.check_version() {
            _ = writeln!(text, "cannot be used: {}", error.message);
        }
    }
    for plugin in registry.shadowed() {
        let file = plugin.path.display();
        _ = writeln!(text, "not used: {file}: the {} `{}` comes from an earlier file", plugin.kind, plugin.id);
    }
    for broken in registry.broken() {
        _ = writeln!(text, "broken: {}", broken.reason);
    }
    if registry.plugins().is_empty() {
        for folder in registry.folders() {
            _ = writeln!(text, "searched: {}", folder.display());
        }
    }
    text
}
