//! The events of a run, for programs that watch it while it trains: one JSON object each, passed on as they happen.
//!
//! What receives them cannot fail: a reader that has gone away must not end a run.

use std::{fmt, sync::Arc};

use serde::Serialize;
use serde_json::{Map, Value};

/// What receives events.
type Receiver = dyn Fn(&Map<String, Value>) + Send + Sync;

/// Where events go. Clones share the receiver.
#[derive(Clone, Default)]
pub struct Events {
    to: Option<Arc<Receiver>>,
    stage: Option<String>,
}

impl Events {
    /// Passes every event to `to`.
    pub fn new(to: impl Fn(&Map<String, Value>) + Send + Sync + 'static) -> Events {
        Events { to: Some(Arc::new(to)), stage: None }
    }

    /// The same receiver, for the stage `name` of a pipeline: each event names it.
    #[must_use]
    pub fn of_stage(&self, name: &str) -> Events {
        Events { to: self.to.clone(), stage: Some(name.to_owned()) }
    }

    /// Passes on an event: `content`, a JSON object, behind its name and its stage. The key `kind`, which logs have instead of a
    /// name, is left out.
    pub fn emit(&self, name: &str, content: &impl Serialize) {
        let Some(to) = &self.to else { return };
        let mut event = Map::new();
        event.insert("event".to_owned(), name.into());
        event.extend(self.stage.clone().map(|stage| ("stage".to_owned(), stage.into())));
        if let Ok(Value::Object(content)) = serde_json::to_value(content) {
            event.extend(content.into_iter().filter(|(key, _)| key != "kind"));
        }
        to(&event);
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("stage", &self.stage).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Mutex;

    /// Catches an event without its name or stage, and one that keeps the log's `kind`.
    #[test]
    fn events_have_a_name_and_a_stage() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let to = seen.clone();
        let events = Events::new(move |event| to.lock().unwrap().push(Value::Object(event.clone())));
        events.emit("step", &json!({ "step": 1, "kind": "train", "loss": 2.0 }));
        events.of_stage("sft").emit("note", &json!({ "text": "look" }));
        Events::default().emit("note", &json!({}));
        let expected = [
            json!({ "event": "step", "step": 1, "loss": 2.0 }),
            json!({ "event": "note", "stage": "sft", "text": "look" }),
        ];
        assert_eq!(*seen.lock().unwrap(), expected);
    }
}
