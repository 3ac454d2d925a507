"""What a silence on one of Binance's streams means, in nanoseconds. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamWatch:
    """When a stream is suspected.

    Attributes:
        silence_ns: time without an update after which the venue is asked for its book; the same,
            and a half, for streams that are suspected because another one shows what they lack.
        check_every_ns: a book that is updated all the time is compared with the venue's this often.
        answer_ns: how long the venue may take to answer a question; asked twice in vain, a silent
            book is not shown any longer.
        catch_up_ns: how long updates may be on their way that the venue's own book has already.
        subscribe_ns: how long a subscription may take to be acknowledged.
        ask_ns: how long it takes to send a request for one stream; of many, each waits for those
            before it, as the venue takes only so many frames in a second.
        refused_ns: pause before a subscription that was refused is tried again.
    """

    silence_ns: int = 2 * 10**9
    check_every_ns: int = 60 * 10**9
    answer_ns: int = 8 * 10**9
    catch_up_ns: int = 1_500_000_000
    subscribe_ns: int = 8 * 10**9
    ask_ns: int = 600_000_000
    refused_ns: int = 60 * 10**9
