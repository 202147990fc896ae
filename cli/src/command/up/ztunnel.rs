//! `--ztunnel`: which program each node's ztunnel is.
use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use crate::exit::{Exit, Result};
use crate::machine::node;

/// One `--ztunnel`: for a node, or for all that have none of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    node: Option<u8>,
    program: PathBuf,
}

/// The program of each node, in order. `program` checks one and makes it absolute; `None` is the one beside weft.
pub(super) fn of_nodes(
    choices: Vec<Choice>,
    nodes: u8,
    program: impl Fn(Option<PathBuf>) -> Result<PathBuf>,
) -> Result<Vec<PathBuf>> {
    let mut others = None;
    let mut own = vec![None; nodes.into()];
    for Choice {
        node,
        program: chosen,
    } in choices
    {
        let (place, of) = match node {
            None => (Some(&mut others), "every node".to_owned()),
            Some(index) => (
                usize::from(index)
                    .checked_sub(1)
                    .and_then(|at| own.get_mut(at)),
                node::name(index.into()),
            ),
        };
        let place = place.ok_or_else(|| {
            Exit::BadInput.because(format!(
                "--ztunnel: there is no {of}: the mesh has {} to {}; give it more with --nodes",
                node::name(1),
                node::name(nodes.into())
            ))
        })?;
        if place.replace(program(Some(chosen))?).is_some() {
            return Err(Exit::BadInput.because(format!("--ztunnel names two programs for {of}")));
        }
    }
    own.into_iter()
        .map(|own| match own.or_else(|| others.clone()) {
            Some(program) => Ok(program),
            None => program(None),
        })
        .collect()
}

// === impl Choice ===

impl FromStr for Choice {
    type Err = Infallible;

    /// `PATH` or `NODE=PATH`. Only a node's name before `=` makes it the latter: a path may have
    /// `=` in it too.
    fn from_str(text: &str) -> std::result::Result<Self, Infallible> {
        let of_node = text
            .split_once('=')
            .and_then(|(name, path)| Some((node::index(name)?, path)));
        Ok(match of_node {
            Some((index, path)) => Self {
                node: Some(index),
                program: path.into(),
            },
            None => Self {
                node: None,
                program: text.into(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(choices: &[&str], nodes: u8) -> std::result::Result<Vec<String>, String> {
        let choices = choices
            .iter()
            .map(|text| text.parse().expect("never fails"))
            .collect();
        let program = |given: Option<PathBuf>| Ok(given.unwrap_or_else(|| "ours".into()));
        of_nodes(choices, nodes, program)
            .map(|all| all.iter().map(|one| one.display().to_string()).collect())
            .map_err(|failure| failure.error.to_string())
    }

    #[test]
    fn a_node_runs_its_own_then_everybodys_then_the_one_beside_weft() {
        for (choices, programs) in [
            (vec![], ["ours", "ours"]),
            (vec!["theirs"], ["theirs", "theirs"]),
            (vec!["node-2=theirs"], ["ours", "theirs"]),
            (vec!["node-2=a", "b"], ["b", "a"]),
            (vec!["./build=1/ztunnel"], ["./build=1/ztunnel"; 2]),
            (vec!["node-=x"], ["node-=x"; 2]),
        ] {
            let programs = programs.map(str::to_owned).to_vec();
            assert_eq!(chosen(&choices, 2), Ok(programs), "{choices:?}");
        }
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        for (choices, said) in [
            (
                vec!["node-3=x"],
                "there is no node-3: the mesh has node-1 to node-2",
            ),
            (vec!["node-0=x"], "there is no node-0"),
            (vec!["node-1=x", "node-1=y"], "two programs for node-1"),
            (vec!["x", "y"], "two programs for every node"),
        ] {
            let error = chosen(&choices, 2).expect_err("refused");
            assert!(error.contains(said), "{choices:?}: {error}");
        }
    }
}
