//! Answers that are about the chain and the mempool together.

use std::time::Duration;

use causeway_consensus::state::IndexView;

use super::App;
use super::answer::Refusal;
use super::live::Live;
use super::reader::Reader;
use crate::mempool::Mempool;

/// How often the two are looked at before they are taken as they are: a node that is far behind commits blocks without a
/// pause.
const TRIES: u32 = 7;

/// The wait after the first try, and twice as long after each other. A block is on disk a moment before the mempool hears
/// of it.
const FIRST_WAIT: Duration = Duration::from_millis(2);

impl<L: Live> App<L> {
    /// Looks at the mempool, then at the index at the very tip that the mempool stands on, and returns what `work` makes of
    /// the two. The mempool comes first: what leaves it for a block is in the index already.
    ///
    /// Where blocks follow each other too fast, the index may be ahead: `work` leaves out of the mempool what is in it.
    pub(super) async fn at_one_tip<P: Send + 'static, T: Send + 'static>(
        &self,
        look: impl Fn(&Mempool) -> P + Clone + Send + 'static,
        work: impl FnOnce(&Reader, &IndexView<'_>, P) -> Result<T, Refusal> + Clone + Send + 'static,
    ) -> Result<T, Refusal> {
        let mut wait = FIRST_WAIT;
        for left in (0..TRIES).rev() {
            let look = look.clone();
            let (tip, seen) = self.live.pool(move |pool| (pool.tip().hash, look(pool))).await?;
            let work = work.clone();
            let answer = self.read(move |reader| {
                let view = reader.index()?;
                if view.tip().hash() == tip || left == 0 { work(reader, &view, seen).map(Some) } else { Ok(None) }
            });
            if let Some(answer) = answer.await? {
                return Ok(answer);
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        Err(Refusal::TooLate)
    }
}
