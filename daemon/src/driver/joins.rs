//! Links of exit nodes that are joined, each in a task. The tasks are owned here, so that the end of none goes unnoticed, however it
//! ends.

use std::collections::HashMap;

use phantom_proto::ident::NodeId;
use tokio::task::{Id, JoinSet};

/// See the module.
#[derive(Default)]
pub(super) struct Joined {
    tasks: JoinSet<()>,
    peers: HashMap<Id, NodeId>,
}

impl Joined {
    /// Begins the task of a link of `peer`.
    pub(super) fn start(&mut self, peer: NodeId, task: impl Future<Output = ()> + Send + 'static) {
        self.peers.insert(self.tasks.spawn(task).id(), peer);
    }

    /// Whose link is joined no more, the next time that one is; `None`: none is.
    pub(super) async fn next(&mut self) -> Option<NodeId> {
        loop {
            let id = match self.tasks.join_next_with_id().await? {
                Ok((id, ())) => id,
                // It panicked, and is over.
                Err(error) => error.id(),
            };
            if let Some(peer) = self.peers.remove(&id) {
                return Some(peer);
            }
        }
    }
}

/// Connections go on while the daemon stops.
impl Drop for Joined {
    fn drop(&mut self) {
        self.tasks.detach_all();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn no_end_goes_unnoticed() {
        let mut joined = Joined::default();
        assert!(joined.next().await.is_none());
        let [first, second] = [NodeId([1; 32]), NodeId([2; 32])];
        joined.start(first, async {});
        assert_eq!(joined.next().await, Some(first));
        joined.start(second, async { panic!("as a fault would") });
        assert_eq!(joined.next().await, Some(second));
        assert!(joined.next().await.is_none() && joined.peers.is_empty());
    }

    #[tokio::test]
    async fn what_is_joined_outlives_the_control_task() {
        let mut joined = Joined::default();
        let ((go_tx, go_rx), (done_tx, done_rx)) = (oneshot::channel::<()>(), oneshot::channel());
        joined.start(NodeId([1; 32]), async move {
            go_rx.await.unwrap();
            done_tx.send(()).unwrap();
        });
        drop(joined);
        go_tx.send(()).unwrap();
        done_rx.await.unwrap();
    }
}
