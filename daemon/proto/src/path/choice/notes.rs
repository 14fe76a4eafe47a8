//! What the operator is told about the choice of nodes.

use std::fmt;

use crate::ident::NodeId;

/// One thing that is worth knowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// A newcomer knows too few nodes to draw its guards for good.
    Provisional,
    /// The network has no room for layers.
    LayersOff,
    /// It is being found out whether a guard kills builds.
    Trial,
    /// In the last trial no three guards worked together.
    NoThreeWork,
    /// As many nodes have stood next to this one as may.
    Exposed,
    /// A guard that is convicted.
    KillsBuilds(NodeId),
    /// A guard whose paths die early.
    KillsPaths(NodeId),
}

/// The first bytes of an id: enough for an operator to find the node, and all that a log should hold.
pub struct Short(pub NodeId);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provisional => {
                f.write_str("guards provisional: they are drawn for good when more of the network is known")
            }
            Self::LayersOff => f.write_str("layers off: too few operators are known"),
            Self::Trial => f.write_str("many builds fail: guards are being tested one after the other"),
            Self::NoThreeWork => f.write_str("no three guards work together: the network or most guards fail"),
            Self::Exposed => {
                f.write_str("no further guard may be met for now: as many nodes have stood next to this one as may")
            }
            Self::KillsBuilds(id) => write!(f, "guard {} kills builds: others stand in for it", Short(*id)),
            Self::KillsPaths(id) => write!(f, "guard {} ends paths early: others stand in for it", Short(*id)),
        }
    }
}
