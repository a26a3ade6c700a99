//! The demo: the main job in one story, with real programs, told in plain sentences with measured figures.
//!
//! Every figure that is printed stands in `summary.json`. A broken promise is named and makes the demo fail.

mod story;
mod teller;

use std::path::Path;

use anyhow::Result;

/// Tells the story.
///
/// # Errors
/// When a program fails or a promise was broken.
pub async fn run(dir: &Path, once: bool, cut: Option<&str>) -> Result<()> {
    story::tell(dir, once, cut).await
}
