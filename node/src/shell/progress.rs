//! How far the fetching of blocks is: a bar on a terminal, lines of the log otherwise.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::Handle;
use crate::machine::Node;

/// Blocks behind from which there is something to show.
const SHOWN_FROM: u32 = 32;

/// How often the bar moves.
const BAR_EVERY: Duration = Duration::from_millis(250);

/// How often a line is written.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows the progress of the node for as long as it runs.
pub(super) async fn show(node: Handle) {
    let terminal = stderr().is_terminal();
    let mut shown: Option<Shown> = None;
    while let Ok(status) = node.look(Node::status).await {
        let (height, target) = (status.height.to_u32(), status.sync_target.map(|target| target.to_u32()));
        match (&mut shown, target) {
            (Some(shown), Some(target)) => shown.update(height, target),
            (Some(_), None) => shown = None,
            (None, Some(target)) if target.saturating_sub(height) >= SHOWN_FROM => {
                shown = Some(Shown::new(terminal, height, target));
            }
            (None, _) => {}
        }
        tokio::time::sleep(if terminal { BAR_EVERY } else { LINE_EVERY }).await;
    }
}

struct Shown {
    bar: Option<ProgressBar>,
    from: u32,
    since: Instant,
}

impl Shown {
    fn new(terminal: bool, height: u32, target: u32) -> Self {
        let bar = terminal.then(|| {
            let template = "fetching blocks {bar:40} {pos}/{len} {per_sec}, {eta} left";
            let style = ProgressStyle::with_template(template).expect("a right template");
            ProgressBar::new(target.into()).with_position(height.into()).with_style(style)
        });
        Self { bar, from: height, since: Instant::now() }
    }

    fn update(&self, height: u32, target: u32) {
        if let Some(bar) = &self.bar {
            bar.set_length(target.into());
            return bar.set_position(height.into());
        }
        let blocks_per_s = f64::from(height.saturating_sub(self.from)) / self.since.elapsed().as_secs_f64().max(0.001);
        tracing::info!(height, target, blocks_per_s = format!("{blocks_per_s:.0}"), "fetching blocks");
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
