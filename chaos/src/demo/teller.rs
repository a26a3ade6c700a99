//! The teller: sentences on the terminal, figures in the summary, broken promises by name.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};

/// Tells and remembers.
#[derive(Debug)]
pub struct Teller {
    figures: Map<String, Value>,
    broken: Vec<String>,
    bar: ProgressBar,
    started: Instant,
}

impl Teller {
    /// Starts with the number of chapters.
    #[must_use]
    pub fn new(chapters: u64) -> Self {
        let style = ProgressStyle::with_template("{spinner} {bar:24} {pos}/{len} {msg} ({elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(chapters).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { figures: Map::new(), broken: Vec::new(), bar, started: Instant::now() }
    }

    /// Begins a chapter.
    pub fn chapter(&self, title: &str) {
        self.bar.set_message(title.to_owned());
        self.say(&format!("\n== {title}"));
        self.bar.inc(1);
    }

    /// Says a sentence.
    pub fn say(&self, sentence: &str) {
        self.bar.suspend(|| {
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{sentence}");
            let _ = out.flush();
        });
    }

    /// Remembers a figure under a name and returns it for the sentence.
    pub fn figure(&mut self, name: &str, value: impl Into<Value>) -> String {
        let value = value.into();
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.figures.insert(name.to_owned(), value);
        text
    }

    /// Remembers a duration in milliseconds and returns it in seconds for the sentence.
    pub fn duration(&mut self, name: &str, duration: Duration) -> String {
        self.figures.insert(name.to_owned(), u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).into());
        format!("{:.2} s", duration.as_secs_f64())
    }

    /// Checks a promise.
    pub fn promise(&mut self, name: &str, holds: bool, otherwise: &str) {
        if !holds {
            let text = format!("{name}: {otherwise}");
            self.say(&format!("!! promise broken, {text}"));
            self.broken.push(text);
        }
    }

    /// Writes the summary.
    ///
    /// # Errors
    /// When a promise was broken, or the file cannot be written.
    pub fn finish(mut self, path: &Path) -> Result<()> {
        let total = self.started.elapsed();
        self.duration("total_ms", total);
        self.figures.insert("promises_broken".into(), Value::from(self.broken.clone()));
        std::fs::write(path, serde_json::to_vec_pretty(&Value::Object(self.figures.clone()))?)?;
        self.bar.finish_and_clear();
        if !self.broken.is_empty() {
            bail!("{} promise(s) broken: {}", self.broken.len(), self.broken.join("; "));
        }
        self.say(&format!(
            "\nAll promises held in {:.0} s. Every figure: {}",
            total.as_secs_f64(),
            path.display()
        ));
        Ok(())
    }
}
