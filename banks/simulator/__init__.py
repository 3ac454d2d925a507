"""A bank to try it on: accounts, payments in, status reports and statements out, and faults on order.

It is told payments as a bank is (pain.001, over HTTP or in a folder) and answers as one does (pain.002,
camt.054, camt.053, MT940). Its days go by when it is told so. Not here: any rule of ours about money.
"""
