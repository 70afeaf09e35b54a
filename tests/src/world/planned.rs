//! A disk operation that fails wherever in a story it comes: counted over all the lives of a machine,
//! so that those of its recoveries are among them.
//!
//! **Invariant:** a death of the machine neither hides a planned failure nor frees a full disk.

use vltava_storage::disk::sim::{Failed, FaultPlan, SimDisk};

use super::{Event, Machine, Undo, World};
use crate::network::{NodeId, Time};

/// What is to fail, and when a lasting failure ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlannedFault {
    /// The number of the operation since the world began, and how it fails.
    plan: FaultPlan,
    /// How long after the first failure a lasting one ends.
    lasts: Time,
    is_ending: bool,
}

impl Machine {
    /// Another disk takes the place of the present one.
    pub(super) fn put_disk(&mut self, disk: SimDisk) {
        self.ops_before += self.disk.op_count();
        self.failed_before.append(&mut self.disk.failed());
        self.disk = disk;
        self.arm();
    }

    /// What was made to fail so far.
    fn failed(&self) -> Vec<Failed> {
        self.failed_before.iter().cloned().chain(self.disk.failed()).collect()
    }

    fn arm(&mut self) {
        let Some(PlannedFault { plan, .. }) = self.fault_at else { return };
        match plan.op.checked_sub(self.ops_before) {
            Some(op) => self.disk.fail(FaultPlan { op, ..plan }),
            None if plan.lasting => self.disk.fail(FaultPlan { op: 0, ..plan }),
            None => {}
        }
    }
}

impl World {
    /// The disk of a node fails as in `plan`, whose operation counts from now on; a lasting failure
    /// ends `lasts` after it was first noticed.
    pub(crate) fn plan_fault(&mut self, node: NodeId, plan: FaultPlan, lasts: Time) {
        let machine = &mut self.machines[node];
        let op = machine.ops_before + machine.disk.op_count() + plan.op;
        let plan = FaultPlan { op, ..plan };
        machine.fault_at = Some(PlannedFault { plan, lasts, is_ending: false });
        machine.arm();
    }

    /// What will not have failed by now works.
    pub(crate) fn forget_fault(&mut self, node: NodeId) {
        if self.machines[node].fault_at.take().is_some() {
            self.machines[node].disk.heal();
        }
    }

    /// What the disk of a node was made to refuse so far.
    pub(crate) fn failed_on(&self, node: NodeId) -> Vec<Failed> {
        self.machines[node].failed()
    }

    /// A lasting failure that was noticed ends some time later.
    pub(super) fn end_noticed_faults(&mut self) {
        for node in 0..self.machines.len() {
            let machine = &mut self.machines[node];
            let Some(fault) = machine.fault_at.filter(|fault| fault.plan.lasting) else { continue };
            if !fault.is_ending && !machine.failed().is_empty() {
                machine.fault_at = Some(PlannedFault { is_ending: true, ..fault });
                self.schedule(self.now + fault.lasts, Event::Undo(Undo::Disk(node)));
            }
        }
    }
}
