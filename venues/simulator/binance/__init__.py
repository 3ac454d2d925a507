"""The Binance spot dialect of the simulated venue: its REST, its streams, its codes.

It is the wire only: what an order does is the exchange's business (`venues.simulator.exchange`).
Unmodified ccxt, ccxt.pro and Binance's own Python client trade on it (tests/conformance/venue).

Spoken, over REST and, where the venue has it, over the WebSocket API:

    general      ping, time, exchangeInfo (symbol, symbols), rateLimit/order, limits in headers
    market       depth, trades, historicalTrades, aggTrades, klines and uiKlines (all 16 intervals,
                 timeZone), avgPrice, ticker/24hr, ticker/tradingDay, ticker, ticker/price,
                 ticker/bookTicker
    orders       LIMIT, MARKET (base or quote), LIMIT_MAKER, STOP_LOSS, STOP_LOSS_LIMIT, TAKE_PROFIT,
                 TAKE_PROFIT_LIMIT, trailingDelta, icebergQty; GTC, IOC, FOK; self-trade prevention
                 NONE, EXPIRE_TAKER, EXPIRE_MAKER, EXPIRE_BOTH, DECREMENT; strategyId and -Type
                 order, order/test, cancel, openOrders, cancelReplace, amend/keepPriority
    lists        orderList/oco, order/oco (deprecated form), orderList/oto, orderList/otoco, queries
    account      account, commission, order, allOrders, openOrders, myTrades, order/amendments,
                 myPreventedMatches, myFilters
    wallet       apiRestrictions, tradeFee, capital config, withdraw apply and history, deposit
                 address and history
    keys         HMAC, RSA, Ed25519; permissions read, trade, withdraw per key; recvWindow
    sessions     session.logon, .status, .logout, .subscriptions; userDataStream.subscribe,
                 .subscribe.signature, .unsubscribe
    user stream  executionReport, outboundAccountPosition, balanceUpdate, listStatus
    streams      trade, aggTrade, kline, miniTicker, ticker, ticker_1h|4h|1d, bookTicker, avgPrice,
                 depth 5|10|20, depth diffs at 100 ms and 1 s, arrays of tickers; raw, combined,
                 SUBSCRIBE, UNSUBSCRIBE, LIST_SUBSCRIPTIONS, SET_PROPERTY, GET_PROPERTY
    limits       request weight, orders; 429 then 418 with Retry-After when they are enforced

Not spoken (answered -1000 with 404, or -1020 over the WebSocket API; streams stay silent):

    listenKey user streams (the venue has taken them away), SOR, OPO and OPOCO lists, pegged orders,
    reference prices, execution rules, SBE, FIX, margin, futures, sub-accounts

Simpler than the venue: an aggregate trade's id is its first trade's id; trades and seconds reach back
a thousand trades, candles a week; filters PERCENT_PRICE_BY_SIDE, MAX_NUM_ORDERS, MAX_NUM_ALGO_ORDERS and
MAX_POSITION do not exist, and are not announced; filled orders do not give back order limit; block
trades and allocations are empty lists; the server's pings come every 20 seconds.

Verbs: `dialect.BinanceDialect`.
"""
