//! The form of the log's lines: text for people, or a JSON object each for programs.
//!
//! The objects are made here because the usual formatter leaves out what caused an error, and puts an event's fields where
//! they may have the name of one of its own. Not here: what is logged, which is a matter of the filter.

use std::{
    env,
    error::Error,
    ffi::OsString,
    fmt::{self, Debug},
    io::{self, IsTerminal},
};

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        layer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// The environment variable that says which form: `text`, which is the default, or `json`.
pub const LOG_FORMAT: &str = "WEIR_LOG_FORMAT";

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; in colours on a terminal.
    #[default]
    Text,
    /// A JSON object.
    Json,
}

/// The environment asks for a form that does not exist.
#[derive(Debug, thiserror::Error)]
#[error("{LOG_FORMAT}: {} is not a form of the log; write text or json", found.display())]
pub struct UnknownFormat {
    found: OsString,
}

impl LogFormat {
    /// What [`LOG_FORMAT`] says.
    ///
    /// # Errors
    /// [`UnknownFormat`].
    pub fn of_environment() -> Result<Self, UnknownFormat> {
        env::var_os(LOG_FORMAT).map_or(Ok(Self::default()), Self::parse)
    }

    fn parse(text: OsString) -> Result<Self, UnknownFormat> {
        match text.to_str() {
            Some("text" | "") => Ok(Self::Text),
            Some("json") => Ok(Self::Json),
            _ => Err(UnknownFormat { found: text }),
        }
    }
}

/// Writes the log's lines to standard error.
pub fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    match format {
        LogFormat::Text => layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer().with_writer(io::stderr).with_ansi(false).event_format(Json).boxed(),
    }
}

/// Makes an object of an event. Names and meanings are in `docs/operations.md`.
struct Json;

#[derive(Serialize)]
struct Line {
    /// RFC 3339, UTC.
    time: String,
    level: &'static str,
    /// The part of the program that says it.
    target: String,
    message: String,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// What [`Line`] has itself.
const OWN: [&str; 4] = ["time", "level", "target", "message"];

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut line = Line {
            time: String::new(),
            level: metadata.level().as_str(),
            target: metadata.target().to_owned(),
            message: String::new(),
            fields: Map::new(),
        };
        SystemTime.format_time(&mut Writer::new(&mut line.time))?;
        event.record(&mut line);
        writeln!(writer, "{}", serde_json::to_string(&line).map_err(|_| fmt::Error)?)
    }
}

impl Line {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let (name, value) = (field.name(), value.into());
        match (name, value) {
            ("message", Value::String(text)) => self.message = text,
            // What comes from libraries through the `log` crate says so in fields.
            ("log.target", Value::String(text)) => self.target = text,
            (name, _) if name.starts_with("log.") => {}
            (name, value) if OWN.contains(&name) => {
                self.fields.insert(format!("fields.{name}"), value);
            }
            (name, value) => {
                self.fields.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    /// With what caused it, from the nearest to the first.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field, value.to_string());
        let mut sources = Vec::new();
        let mut cause = value.source();
        while let Some(error) = cause {
            sources.push(Value::String(error.to_string()));
            cause = error.source();
        }
        if !sources.is_empty() {
            self.fields.insert(format!("{}.sources", field.name()), Value::Array(sources));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl MakeWriter<'_> for Written {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic in between").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The objects that the log has for what is logged.
    fn logged(say: impl FnOnce()) -> Vec<Value> {
        let written = Written::default();
        let json = layer::<tracing_subscriber::Registry>().with_writer(written.clone()).event_format(Json);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(json), say);
        let bytes = written.0.lock().expect("no panic in between");
        let text = std::str::from_utf8(&bytes).expect("text");
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
    }

    #[test]
    fn an_event_is_an_object_with_its_fields_as_they_are() {
        let session = "0199";
        let lines = logged(|| {
            tracing::warn!(%session, records = 3_u64, fits = true, cause = ?Some(1), "it\n\"stalls\"\u{1b}[0m");
            tracing::info!("ready");
        });
        let [stalls, ready] = &lines[..] else { panic!("two lines: {lines:?}") };
        assert_eq!(stalls["session"], "0199");
        assert_eq!(stalls["records"], 3);
        assert_eq!(stalls["fits"], true);
        assert_eq!(stalls["cause"], "Some(1)");
        assert_eq!(stalls["message"], "it\n\"stalls\"\u{1b}[0m", "whatever is in it, it is one line");
        assert_eq!((&stalls["level"], &ready["level"]), (&"WARN".into(), &"INFO".into()));
        assert_eq!(ready["target"], module_path!());
        assert!(ready["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{ready}");
        assert!(ready.get("session").is_none());
    }

    #[test]
    fn an_error_comes_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot write the spool")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::other("no space left"));
        let lines = logged(|| tracing::error!(error = &error as &dyn Error, "sessions stall"));
        assert_eq!(lines[0]["error"], "cannot write the spool");
        assert_eq!(lines[0]["error.sources"], serde_json::json!(["no space left"]));
    }

    #[test]
    fn a_field_does_not_take_the_place_of_what_every_line_has() {
        let lines = logged(|| tracing::info!(target: "weir_tap", level = 7, time = "noon", "said"));
        assert_eq!((&lines[0]["target"], &lines[0]["level"]), (&"weir_tap".into(), &"INFO".into()));
        assert_eq!((&lines[0]["fields.level"], &lines[0]["fields.time"]), (&7.into(), &"noon".into()));
    }

    #[test]
    fn a_form_that_does_not_exist_is_named() {
        assert_eq!(LogFormat::parse("json".into()).expect("exists"), LogFormat::Json);
        assert_eq!(LogFormat::parse("text".into()).expect("exists"), LogFormat::Text);
        let error = LogFormat::parse("yaml".into()).expect_err("does not exist").to_string();
        assert!(error.contains(LOG_FORMAT) && error.contains("yaml"), "{error}");
    }
}
