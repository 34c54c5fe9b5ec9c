//! Computed beginnings that sequences share: a tree of whole pages.
//!
//! A node is a page of positions under the node of the page before it; the roots are the owners. A child is found by
//! comparing what stands at all of its positions, so that a hit is never a matter of hashes alone. A node holds one
//! page of the layers that see everything and, as long as there is room, one of the layers that see a chunk.
//!
//! Whoever holds a node's page holds those of all nodes above it, because a sequence swaps its own page for the node's
//! when it comes to one that is there already. So the nodes that nobody uses are whole branches, and a node without
//! children can go whenever only the tree holds its page.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;

use tensor::PAGE_LEN;

use super::Mark;
use crate::pages::{PageTable, Pool};
use crate::service::Owner;

/// Index of a node.
pub(super) type NodeId = usize;

/// What stands at the positions of one page.
type Block = Box<[Mark]>;

/// The tree.
#[derive(Debug, Default)]
pub(super) struct PrefixCache {
    roots: HashMap<Owner, HashMap<Block, NodeId>>,
    nodes: Vec<Option<Node>>,
    vacant: Vec<NodeId>,
    /// All nodes, those first that go first. A node was never used later than the one above it.
    by_use: BTreeSet<(u64, Reverse<usize>, NodeId)>,
    clock: u64,
}

#[derive(Debug)]
struct Node {
    owner: Owner,
    parent: Option<NodeId>,
    /// Nodes above it.
    depth: usize,
    block: Block,
    children: HashMap<Block, NodeId>,
    global: u32,
    chunked: Option<u32>,
    used: u64,
}

/// A computed beginning.
#[derive(Debug, Default)]
pub(super) struct Hit {
    nodes: Vec<NodeId>,
    /// Positions of it that need no computing.
    pub(super) n_computed: usize,
}

/// The two pools.
pub(super) type Pools<'a> = (&'a mut Pool, &'a mut Pool);

impl PrefixCache {
    /// The longest beginning of `marks` that `owner` has computed and that leaves one position to compute. Layers that
    /// see one `chunk` need its pages from where the chunk of the next position begins: without them the hit ends
    /// earlier.
    pub(super) fn find(&self, owner: Owner, marks: impl Iterator<Item = Mark>, chunk: Option<NonZeroUsize>) -> Hit {
        let (mut nodes, mut children) = (Vec::new(), self.roots.get(&owner));
        let mut marks = marks.peekable();
        while let Some(of) = children {
            let block: Vec<Mark> = marks.by_ref().take(PAGE_LEN).collect();
            let Some(node) = of.get(block.as_slice()).filter(|_| marks.peek().is_some()) else { break };
            nodes.push(*node);
            children = self.node(*node).map(|node| &node.children);
        }
        let n_nodes = self.n_usable(&nodes, chunk);
        nodes.truncate(n_nodes);
        Hit { nodes, n_computed: n_nodes * PAGE_LEN }
    }

    fn n_usable(&self, nodes: &[NodeId], chunk: Option<NonZeroUsize>) -> usize {
        let Some(chunk) = chunk else { return nodes.len() };
        let has_chunked = |id: &NodeId| self.node(*id).is_some_and(|node| node.chunked.is_some());
        // For each length: how many nodes until the last one without a page of chunked layers.
        let mut last_without = 0;
        let mut best = 0;
        for (i, id) in nodes.iter().enumerate() {
            if !has_chunked(id) {
                last_without = i + 1;
            }
            if first_needed((i + 1) * PAGE_LEN, chunk) / PAGE_LEN >= last_without {
                best = i + 1;
            }
        }
        best
    }

    /// How many pages of each pool nobody but the tree holds and a hit would take up.
    pub(super) fn n_alone(&self, hit: &Hit, chunk: Option<NonZeroUsize>, pools: (&Pool, &Pool)) -> (usize, usize) {
        let first = chunk.map_or(usize::MAX, |chunk| first_needed(hit.n_computed, chunk) / PAGE_LEN);
        let mut n = (0, 0);
        for (i, node) in hit.nodes.iter().enumerate().filter_map(|(i, id)| Some((i, self.node(*id)?))) {
            n.0 += usize::from(pools.0.n_holders(node.global) == 1);
            let chunked = node.chunked.filter(|_| i >= first);
            n.1 += usize::from(chunked.is_some_and(|page| pools.1.n_holders(page) == 1));
        }
        n
    }

    /// The pages of `hit`, held once more each, as tables of both pools; and the last of its nodes.
    pub(super) fn share(
        &mut self,
        hit: &Hit,
        chunk: Option<NonZeroUsize>,
        pools: Pools<'_>,
    ) -> (PageTable, PageTable, Option<NodeId>) {
        let first = chunk.map_or(hit.n_computed, |chunk| first_needed(hit.n_computed, chunk));
        let (mut global, mut chunked) = (Vec::new(), Vec::new());
        for (i, id) in hit.nodes.iter().enumerate() {
            let Some(node) = self.node(*id) else { continue };
            global.push(pools.0.share(node.global));
            if i * PAGE_LEN >= first {
                chunked.extend(node.chunked.map(|page| pools.1.share(page)));
            }
        }
        let last = hit.nodes.last().copied();
        self.touch(last);
        (PageTable::holding(global, 0), PageTable::holding(chunked, first), last)
    }

    /// The page of `block` under `parent`, computed by a sequence with these tables at `position`. Where the tree has it
    /// already, the sequence gives its own page back and holds the tree's.
    pub(super) fn enter(
        &mut self,
        (owner, parent): (Owner, Option<NodeId>),
        block: &[Mark],
        position: usize,
        tables: (&mut PageTable, &mut PageTable),
        pools: Pools<'_>,
    ) -> Option<NodeId> {
        let global = tables.0.page_at(position)?;
        let chunked = tables.1.page_at(position);
        let n_nodes = self.nodes.len();
        let siblings = match parent {
            Some(parent) => &mut self.nodes.get_mut(parent)?.as_mut()?.children,
            None => self.roots.entry(owner).or_default(),
        };
        let Some(id) = siblings.get(block).copied() else {
            let id = self.vacant.pop().unwrap_or(n_nodes);
            siblings.insert(block.into(), id);
            let (depth, used) = parent.and_then(|id| self.node(id)).map_or((0, self.clock), |p| (p.depth + 1, p.used));
            let (global, chunked) = (pools.0.keep(global), chunked.map(|page| pools.1.keep(page)));
            let node =
                Node { owner, parent, depth, block: block.into(), children: HashMap::new(), global, chunked, used };
            match self.nodes.get_mut(id) {
                Some(place) => *place = Some(node),
                None => self.nodes.push(Some(node)),
            }
            self.by_use.insert((used, Reverse(depth), id));
            return Some(id);
        };
        let node = self.nodes.get_mut(id)?.as_mut()?;
        if node.global != global {
            let page = pools.0.share(node.global);
            tables.0.replace(pools.0, position, page);
        }
        match (node.chunked, chunked) {
            (Some(of_node), Some(own)) if of_node != own => {
                let page = pools.1.share(of_node);
                tables.1.replace(pools.1, position, page);
            }
            (None, Some(own)) => node.chunked = Some(pools.1.keep(own)),
            _ => {}
        }
        Some(id)
    }

    /// Marks `last` and all nodes above it as just used.
    pub(super) fn touch(&mut self, last: Option<NodeId>) {
        self.clock += 1;
        let mut next = last;
        while let Some((id, node)) = next.and_then(|id| Some((id, self.nodes.get_mut(id)?.as_mut()?))) {
            self.by_use.remove(&(node.used, Reverse(node.depth), id));
            node.used = self.clock;
            self.by_use.insert((node.used, Reverse(node.depth), id));
            next = node.parent;
        }
    }

    /// Frees one page of the layers that see everything, of the node that nobody has used for longest. Whether there
    /// was one.
    pub(super) fn evict(&mut self, pools: Pools<'_>) -> bool {
        let alone = |id: &NodeId| {
            let page = self.node(*id).filter(|node| node.children.is_empty()).map(|node| node.global);
            page.is_some_and(|page| pools.0.n_holders(page) == 1)
        };
        let found = self.by_use.iter().map(|(_, _, id)| *id).find(alone);
        let Some((id, node)) = found.and_then(|id| Some((id, self.nodes.get_mut(id)?.take()?))) else { return false };
        self.vacant.push(id);
        self.by_use.remove(&(node.used, Reverse(node.depth), id));
        match node.parent {
            Some(parent) => {
                if let Some(parent) = self.nodes.get_mut(parent).and_then(Option::as_mut) {
                    parent.children.remove(&node.block);
                }
            }
            None => {
                let of_owner = self.roots.get_mut(&node.owner);
                if of_owner.is_some_and(|roots| roots.remove(&node.block).is_some() && roots.is_empty()) {
                    self.roots.remove(&node.owner);
                }
            }
        }
        pools.0.forget(node.global);
        node.chunked.into_iter().for_each(|page| pools.1.forget(page));
        true
    }

    /// Frees one page of the layers that see a chunk, of the node that nobody has used for longest; the node stays.
    /// Whether there was one.
    pub(super) fn evict_chunked(&mut self, pool: &mut Pool) -> bool {
        let alone = |id: &NodeId| {
            let page = self.node(*id).and_then(|node| node.chunked);
            page.is_some_and(|page| pool.n_holders(page) == 1)
        };
        let found = self.by_use.iter().map(|(_, _, id)| *id).find(alone);
        let page = found.and_then(|id| self.nodes.get_mut(id)?.as_mut()?.chunked.take());
        page.into_iter().for_each(|page| pool.forget(page));
        page.is_some()
    }

    /// The pages that the tree holds, of both pools.
    pub(super) fn pages(&self) -> (Vec<u32>, Vec<u32>) {
        let nodes = || self.nodes.iter().flatten();
        (nodes().map(|node| node.global).collect(), nodes().filter_map(|node| node.chunked).collect())
    }

    fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id)?.as_ref()
    }
}

/// The first position, at the beginning of a page, that chunked layers keep for a sequence whose next one is `end`.
pub(super) fn first_needed(end: usize, chunk: NonZeroUsize) -> usize {
    (end - end % chunk) / PAGE_LEN * PAGE_LEN
}
