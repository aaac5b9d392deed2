"""`make bench`: our server beside its peers and the floor, on this machine, in one run.

    cpu.py         what a process and its descendants have cost so far
    servers.py     a server under test: start, wait until it answers, stop
    rounds.py      all of them loaded in turn, in short slices; ratios round by round
    plan.py        what every scenario is given
    tables.py      what a scenario hands back, and what it is judged by
    load.py        the load: client.c, told what to ask and what the answer has to be
    floor.c        the least that a server can do
    fronts.py      the scenario behind nginx
    apache.py      those under Apache: CGI beside SCGI, and our module beside Apache's own
    large.py       those of large bodies, and of readers that do not read
    project.py     a Django project in the servers under test, for pool_growth.py and memory.py
    apps/          the applications of these

Only the standard library is used, and of scgi nothing but its command line.
"""
