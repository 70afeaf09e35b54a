//! Producer ids, given out of blocks that group 0 reserves.
//!
//! A block is used up or lost with the process, so an id is never given twice; gaps are harmless.

use std::ops::Range;

use tokio::sync::Mutex;

/// The rest of the node's current block.
#[derive(Debug, Default)]
pub struct ProducerIds {
    /// Held while a block is fetched, so that those who wait share it: one commit, not one each.
    rest: Mutex<Range<i64>>,
}

impl ProducerIds {
    /// The next id; `allocate` reserves another block when this one is used up. Cancel-safe: a
    /// block that was reserved in vain is lost, not given twice.
    pub async fn next<E>(
        &self,
        allocate: impl AsyncFnOnce() -> Result<Range<i64>, E>,
    ) -> Result<i64, E> {
        let mut rest = self.rest.lock().await;
        if rest.is_empty() {
            *rest = allocate().await?;
            assert!(!rest.is_empty(), "a block holds ids");
        }
        Ok(rest.next().expect("the block holds an id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ids_go_up_through_the_blocks_and_a_failure_loses_nothing() {
        let ids = ProducerIds::default();
        let mut given = Vec::new();
        for block in [Ok(10..12), Err("no leader"), Ok(50..51)] {
            match ids.next(async || block.clone()).await {
                Ok(id) => given.push(id),
                Err(error) => {
                    assert_eq!(error, "no leader");
                    continue;
                }
            }
            while let Ok(id) = ids.next(async || Err("used up")).await {
                given.push(id);
            }
        }
        assert_eq!(given, [10, 11, 50]);
    }
}
