"""Threads that a program starts are tracked; those of others are left alone."""

import _thread
import concurrent.futures
import queue
import threading
from multiprocessing.pool import ThreadPool

import pytest
import torch
from torch.distributions import Bernoulli
from torch.overrides import _get_current_function_mode_stack

from zoo.gradients.graphs import trace

pytestmark = pytest.mark.usefixtures("without_type_checks")


def in_a_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def in_a_thread_with_run(function):
    class Worker(threading.Thread):
        def run(self):
            self.result = function()

    worker = Worker()
    worker.start()
    worker.join()
    return worker.result


def in_a_pool(function):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def in_a_pool_by_map(function):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return next(pool.map(lambda call: call(), [function]))


def in_a_pool_of_multiprocessing(function):
    with ThreadPool(1) as pool:
        return pool.apply(function)


def in_a_thread_without_an_object(function):
    results = queue.Queue()
    _thread.start_new_thread(lambda: results.put(function()), ())
    return results.get(timeout=10)


WAYS = [
    *(in_a_thread, in_a_thread_with_run, in_a_thread_without_an_object),
    *(in_a_pool, in_a_pool_by_map, in_a_pool_of_multiprocessing),
]
TASKS = {
    "apply": lambda pool, task: pool.apply(task),
    "apply_by_name": lambda pool, task: pool.apply_async(func=task).get(),
    "map": lambda pool, task: pool.map(lambda _: task(), [0])[0],
    "starmap": lambda pool, task: pool.starmap(task, [()])[0],
    "imap": lambda pool, task: next(pool.imap(lambda _: task(), [0])),
    "imap_in_chunks": lambda pool, task: next(pool.imap_unordered(lambda _: task(), [0], chunksize=2)),
}


def influences(program):
    return trace(program, torch.zeros(())).influences("x")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_computation_in_a_thread_is_tracked(way):
    def program(graph, theta):
        x = graph.sample("x", Bernoulli(logits=theta))
        graph.cost("f", way(lambda: 2 * x.detach() + 1))

    assert influences(program) == {"f"}


def test_task_of_an_existing_pool_is_tracked_and_its_threads_are_restored():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()

        def program(graph, theta):
            x = graph.sample("x", Bernoulli(logits=theta))
            graph.cost("f", pool.submit(lambda: 2 * x).result())

        assert influences(program) == {"f"}
        assert pool.submit(_get_current_function_mode_stack).result() == []


def test_control_dependency_in_a_thread_during_a_draw_of_another_is_recorded():
    go_on = threading.Event()

    def program(graph, theta):
        x, seen = graph.sample("x", Bernoulli(logits=theta)), []
        thread = threading.Thread(target=lambda: go_on.wait(10) and seen.append(x.item()))

        def draw_beside_the_thread(shape=()):
            go_on.set()
            thread.join()
            return torch.zeros(shape)

        beside = Bernoulli(logits=theta)
        beside.sample = draw_beside_the_thread
        thread.start()
        graph.sample("y", beside)
        graph.cost("f", seen[0])

    assert influences(program) == {"y", "f"}


def test_control_flow_of_a_sampler_in_its_own_thread_is_no_control_dependency():
    def program(graph, theta):
        x = graph.sample("x", Bernoulli(logits=theta))
        looking = Bernoulli(logits=theta)
        looking.sample = lambda shape=(): torch.tensor(x.item())
        graph.sample("y", looking)
        graph.cost("f", theta)

    assert influences(program) == set()


@pytest.mark.parametrize("give", TASKS.values(), ids=TASKS)
def test_task_of_an_existing_multiprocessing_pool_is_tracked(give):
    with ThreadPool(1) as pool:

        def program(graph, theta):
            x = graph.sample("x", Bernoulli(logits=theta))
            graph.cost("f", give(pool, lambda: 2 * x.detach() + 1))

        assert influences(program) == {"f"}
        assert pool.apply(_get_current_function_mode_stack) == []


def test_threads_that_use_no_sample_have_no_influence():
    def program(graph, theta):
        graph.sample("x", Bernoulli(logits=theta))
        graph.cost("f", in_a_thread(lambda: 2 * theta))

    assert influences(program) == set()


def test_threading_is_unpatched_after_a_trace():
    start, submit = threading.Thread.start, concurrent.futures.ThreadPoolExecutor.submit
    start_new, apply_async = _thread.start_new_thread, ThreadPool.apply_async
    influences(lambda graph, theta: graph.cost("f", graph.sample("x", Bernoulli(logits=theta))))
    assert threading.Thread.start is start
    assert concurrent.futures.ThreadPoolExecutor.submit is submit
    assert _thread.start_new_thread is start_new
    assert ThreadPool.apply_async is apply_async
