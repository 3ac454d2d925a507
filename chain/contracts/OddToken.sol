// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// A token that behaves badly on demand, in the ways in which real ones do. For tests only.
/// Balances are shares of a scale, so that a rebase moves every balance without an event.
contract OddToken {
    enum Behaviour {
        PLAIN, // returns true and emits an event
        RETURNS_NOTHING, // like USDT: moves, emits, returns no data
        RETURNS_FALSE, // moves nothing, emits nothing, does not revert
        EMITS_UNINDEXED, // moves, but the event has one topic
        EMITS_NFT, // moves, but the event has four topics, as ERC-721
        REVERTS_ON_ZERO, // plain, but refuses to move nothing
        TELLS_SENT // takes a fee, but the event says what was sent, not what was received
    }

    bytes32 private constant TRANSFER = keccak256("Transfer(address,address,uint256)");
    uint256 private constant ONE = 1e18;

    uint8 public decimals;
    bool public textIsBytes32;
    Behaviour public behaviour;
    uint256 public feeBasisPoints;
    bool public paused;
    uint256 public scale = ONE;

    mapping(address => bool) public blocked;
    mapping(address => uint256) private shares;
    mapping(address => mapping(address => uint256)) public allowance;

    event Transfer(address indexed from, address indexed to, uint256 value);

    error Paused();
    error Blocked(address account);
    error BalanceTooLow(address account, uint256 balance, uint256 needed);
    error NothingToMove();

    constructor(uint8 decimals_, uint256 supply, bool textIsBytes32_) {
        decimals = decimals_;
        textIsBytes32 = textIsBytes32_;
        shares[msg.sender] = supply;
        emit Transfer(address(0), msg.sender, supply);
    }

    function setBehaviour(Behaviour behaviour_) external {
        behaviour = behaviour_;
    }

    function setFee(uint256 basisPoints) external {
        feeBasisPoints = basisPoints;
    }

    function setPaused(bool paused_) external {
        paused = paused_;
    }

    function setBlocked(address account, bool blocked_) external {
        blocked[account] = blocked_;
    }

    function setDecimals(uint8 decimals_) external {
        decimals = decimals_;
    }

    /// Every balance becomes its share of the new scale (18 decimals); no event says so.
    function rebase(uint256 scale_) external {
        scale = scale_;
    }

    /// An event that names any two parties; nothing moves.
    function forge(address from, address to, uint256 value) external {
        emit Transfer(from, to, value);
    }

    function balanceOf(address account) public view returns (uint256) {
        return (shares[account] * scale) / ONE;
    }

    function name() external view {
        _text("Odd Token");
    }

    function symbol() external view {
        _text("ODD");
    }

    function approve(address spender, uint256 value) external returns (bool) {
        allowance[msg.sender][spender] = value;
        return true;
    }

    /// The data that is returned depends on the behaviour, so none is declared.
    function transfer(address to, uint256 value) external {
        _move(msg.sender, to, value);
    }

    function transferFrom(address from, address to, uint256 value) external {
        allowance[from][msg.sender] -= value;
        _move(from, to, value);
    }

    function _move(address from, address to, uint256 value) private {
        if (paused) revert Paused();
        if (blocked[from]) revert Blocked(from);
        if (blocked[to]) revert Blocked(to);
        if (behaviour == Behaviour.RETURNS_FALSE) _return(0);
        if (behaviour == Behaviour.REVERTS_ON_ZERO && value == 0) revert NothingToMove();
        if (balanceOf(from) < value) revert BalanceTooLow(from, balanceOf(from), value);
        uint256 fee = (value * feeBasisPoints) / 10_000;
        shares[from] -= (value * ONE) / scale;
        shares[to] += ((value - fee) * ONE) / scale;
        shares[address(this)] += (fee * ONE) / scale;
        _tell(from, to, behaviour == Behaviour.TELLS_SENT ? value : value - fee);
        if (fee > 0) _tell(from, address(this), fee);
        if (behaviour == Behaviour.RETURNS_NOTHING) {
            assembly {
                return(0, 0)
            }
        }
        _return(1);
    }

    function _tell(address from, address to, uint256 value) private {
        bytes32 topic = TRANSFER;
        if (behaviour == Behaviour.EMITS_UNINDEXED) {
            assembly {
                let at := mload(0x40)
                mstore(at, from)
                mstore(add(at, 0x20), to)
                mstore(add(at, 0x40), value)
                log1(at, 0x60, topic)
            }
        } else if (behaviour == Behaviour.EMITS_NFT) {
            assembly {
                log4(0, 0, topic, from, to, value)
            }
        } else {
            emit Transfer(from, to, value);
        }
    }

    function _return(uint256 word) private pure {
        assembly {
            mstore(0, word)
            return(0, 0x20)
        }
    }

    function _text(string memory text) private view {
        bytes memory answer = textIsBytes32 ? abi.encode(bytes32(bytes(text))) : abi.encode(text);
        assembly {
            return(add(answer, 0x20), mload(answer))
        }
    }
}
