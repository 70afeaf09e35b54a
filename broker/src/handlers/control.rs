//! What the handlers of changes to the cluster share: the client's patience, and the texts of
//! refusals.

use std::time::Duration;

use vltava_protocol::messages::StrBytes;

use crate::controller::error::ControlError;

/// Makes a change as long as the client waits for it. One that gives no time is answered that the
/// time is over, and nothing is changed: Kafka's controller looks at the deadline of a request
/// before it begins (`QuorumController.appendWriteEvent`). The change is a task of its own, which
/// runs to its end though nobody waits for it: what it has appended would otherwise be applied only
/// by the next change. Its panic goes on here.
pub async fn within<T: Send + 'static>(
    timeout_ms: i32,
    change: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let millis = u64::try_from(timeout_ms).ok().filter(|&millis| millis > 0)?;
    tokio::time::timeout(Duration::from_millis(millis), to_its_end(change)).await.ok()?
}

/// Makes a change that is not cut short when the client goes away. `None` when the runtime ends.
pub async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    match tokio::spawn(change).await {
        Ok(result) => Some(result),
        Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
        // The runtime ends, and takes the caller with it.
        Err(_) => None,
    }
}

/// The text of a refusal, on the wire.
pub fn message(error: &ControlError) -> Option<StrBytes> {
    error.message().map(StrBytes::from_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn without_time_nothing_is_begun() {
        assert_eq!(within(5, std::future::pending::<()>()).await, None);
        for millis in [0, -1, i32::MIN] {
            let change = async { panic!("the change begins") };
            assert_eq!(within::<()>(millis, change).await, None);
        }
        let work = tokio::time::sleep(Duration::from_secs(1));
        assert_eq!(within(i32::MAX, work).await, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_ends_though_nobody_waits_for_it() {
        let (ended, told) = tokio::sync::oneshot::channel();
        let change = async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            ended.send(()).unwrap();
        };
        assert_eq!(within(5, change).await, None);
        assert_eq!(told.await, Ok(()));
    }
}
