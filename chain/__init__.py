"""Chains as they are: blocks, movements of value, keys' public halves, and what a node answers.

Nouns: blocks and their contents (movements from or to watched addresses, outcomes of transactions),
steps (a block included, a block orphaned), broadcast outcomes, account keys.
Verbs: `follow.follow` walks a chain block by block and hands every step to its caller inside one
database transaction; `ports.ChainGateway` is what is asked of a node; ``evm`` speaks to one;
``keys`` derives addresses from extended *public* keys.

It states facts and never posts: it knows no client, no deposit and no ledger. It holds no private
key. It trusts hashes, never heights.

Must preserve:

- the cursor's block, its contents and everything the caller wrote for it commit together or not
  at all, so a crash replays a block to no effect;
- a block is orphaned with exactly the contents that were stored when it was included;
- an answer that is missing, late or contradictory is an error to retry, never "nothing happened".
"""
