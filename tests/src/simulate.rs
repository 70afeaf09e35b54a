//! Running a seed, and making the story of a failing one shorter.

use std::fmt::Write;

use crate::checker::Violation;
use crate::coverage::Coverage;
use crate::plan::Plan;
use crate::world::World;

/// Runs of a shortened story, at most.
const SHRINK_RUNS_MAX: usize = 400;

/// What a history led to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Events that happened.
    pub steps: u64,
    /// A hash of every message.
    pub hash: u64,
    /// What it went through.
    pub coverage: Coverage,
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// What happened, if it was to be remembered.
    pub trace: Vec<String>,
}

/// Runs a plan to its end.
pub fn run(plan: &Plan, is_traced: bool) -> Outcome {
    let mut world = plan.world();
    world.trace = is_traced.then(Vec::new);
    let result = live(plan, &mut world);
    Outcome {
        steps: world.steps,
        hash: world.hash(),
        coverage: std::mem::take(&mut world.coverage),
        violation: result.err(),
        trace: world.trace.take().unwrap_or_default(),
    }
}

fn live(plan: &Plan, world: &mut World) -> Result<(), Violation> {
    world.run_until(plan.length)?;
    world.finish()
}

/// Leaves out what a failing plan does not need to fail in the same way: halves of it, then
/// quarters, then single actions.
pub fn shrink(plan: &Plan, violation: &Violation) -> Plan {
    let kind = kind_of(violation);
    let mut best = plan.clone();
    let mut runs = 0;
    let mut size = best.actions.len() / 2;
    while size > 0 {
        let mut start = 0;
        while start < best.actions.len() && runs < SHRINK_RUNS_MAX {
            let mut shorter = best.clone();
            let end = (start + size).min(shorter.actions.len());
            shorter.actions.drain(start..end);
            runs += 1;
            if run(&shorter, false).violation.is_some_and(|again| kind_of(&again) == kind) {
                best = shorter;
            } else {
                start += size;
            }
        }
        size /= 2;
    }
    best
}

/// The words of a violation without its numbers.
fn kind_of(violation: &Violation) -> String {
    violation.0.chars().filter(|letter| !letter.is_ascii_digit()).take(40).collect()
}

/// A plan as a story.
pub fn story(plan: &Plan) -> String {
    let mut text = format!("{:?}\nproducers {:?}\n", plan.setup, plan.producers);
    for (at, action) in &plan.actions {
        let _ = writeln!(text, "{at:>9} {action}");
    }
    let _ = writeln!(text, "{:>9} all faults end", plan.length);
    text
}
