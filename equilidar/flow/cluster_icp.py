"""The loops behind `registration`: votes, closest points, costs of motions.

A motion of a cluster is (turn, shift x, shift y): about the vertical through the cluster's middle, then along.
`near` names the rows of the target points about a cluster, `others` how far the clusters beside it are from each: only
what they leave unexplained can be this one's.
"""

import numpy as np

from equilidar.compiled import compiled
from equilidar.flow.line_icp import refine
from equilidar.flow.point_grid import closest, closest_of, rows_within


@compiled
def neighbourhood(
    box, shift_x, shift_y, margin, c, target, first, owner, second, near, others
):  # pragma: no cover - compiled
    """Fill `near` and `others` for a cluster's box and where a shift takes it; return how many there are."""
    number = rows_within(
        box[0] + min(shift_x, 0.0) - margin, box[1] + min(shift_y, 0.0) - margin,
        box[2] + max(shift_x, 0.0) + margin, box[3] + max(shift_y, 0.0) + margin, target, near,
    )  # fmt: skip
    for k in range(number):
        others[k] = second[near[k]] if owner[near[k]] == c else first[near[k]]
    return number


@compiled
def vote(cluster, target, near, others, number, half, width, peaks, tried):  # pragma: no cover - compiled
    """Fill `tried` with the peaks of the histogram of translations, away from none; return how many there are."""
    side = 2 * half + 1
    votes = np.zeros((side + 2, side + 2))
    for n in range(0, len(cluster), max(1, len(cluster) // 64)):
        for k in range(number):
            q = target.points[near[k]]
            if abs(q[2] - cluster[n, 2]) > 0.2:
                continue
            i = int(np.floor((q[0] - cluster[n, 0]) / width + 0.5)) + half
            j = int(np.floor((q[1] - cluster[n, 1]) / width + 0.5)) + half
            if 0 <= i < side and 0 <= j < side:
                # What others explain counts little, but a mover may stand against them.
                votes[i + 1, j + 1] += max(others[k], 0.025)
    smooth = np.zeros((side, side))
    for i in range(side):
        for j in range(side):
            sides = votes[i, j + 1] + votes[i + 2, j + 1] + votes[i + 1, j] + votes[i + 1, j + 2]
            corners = votes[i, j] + votes[i, j + 2] + votes[i + 2, j] + votes[i + 2, j + 2]
            smooth[i, j] = votes[i + 1, j + 1] + 0.5 * sides + 0.25 * corners
    found = 0
    while found < peaks:
        flat = smooth.argmax()
        i, j = flat // side, flat % side
        if smooth[i, j] <= 0:
            break
        if max(abs(i - half), abs(j - half)) > 1:
            tried[found] = 0.0, (i - half) * width, (j - half) * width
            found += 1
        smooth[max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3] = 0.0
    return found


@compiled
def costs(
    own, mx, my, turned, sx, sy, c, source, target, near, others, number, first, owner, far
):  # pragma: no cover - compiled
    """Return summed distances at rest and after a motion, over the same points, and how many those are; and the
    fraction of the cluster's own points that the motion leaves without a partner."""
    cos, sin = np.cos(turned), np.sin(turned)
    rest = cost = support = lost = 0.0
    x0 = y0 = np.inf
    x1 = y1 = -np.inf
    for n in range(len(own)):
        x, y = cos * own[n, 0] - sin * own[n, 1] + mx + sx, sin * own[n, 0] + cos * own[n, 1] + my + sy
        x0, x1, y0, y1 = min(x0, x), max(x1, x), min(y0, y), max(y1, y)
        rest += closest(own[n, 0] + mx, own[n, 1] + my, own[n, 2], far, target)[1]
        d = closest(x, y, own[n, 2], far, target)[1]
        cost += d
        lost += d >= far
        support += 1.0
    for k in range(number):
        q = target.points[near[k]]
        is_own = owner[near[k]] == c
        if not is_own and (q[0] < x0 - far or q[0] > x1 + far or q[1] < y0 - far or q[1] > y1 + far):
            continue
        bx, by = q[0] - mx - sx, q[1] - my - sy
        row, d = closest_of(cos * bx + sin * by + mx, -sin * bx + cos * by + my, q[2], others[k], c, source)
        if is_own or row >= 0:
            rest += first[near[k]]
            cost += d
            support += 1.0
    return rest, cost, support, lost / len(own)


@compiled
def search(
    clusters,
    starts,
    box,
    source,
    target,
    first,
    owner,
    second,
    may_move,
    reach,
    turn,
    width,
    peaks,
    iterations,
    gate,
    far,
    lines,
    result,
):  # pragma: no cover - compiled
    """Fill each cluster's row of `result` with its best motion: turn, shift, rest cost, cost, support, lost."""
    near = np.empty(len(target.points), np.int64)
    others = np.empty(len(target.points))
    half = int(np.ceil(reach / width))
    tried = np.zeros((peaks + 1, 3))
    plain = lines[0], 1.0, 1.0
    for c in range(len(may_move)):
        cluster = clusters[starts[c] : starts[c + 1]]
        mx, my = 0.5 * (box[c, 0] + box[c, 2]), 0.5 * (box[c, 1] + box[c, 3])
        own = cluster.copy()
        own[:, 0] -= mx
        own[:, 1] -= my
        number = neighbourhood(box[c], 0.0, 0.0, far, c, target, first, owner, second, near, others)
        rest, _, support, lost = costs(
            own, mx, my, 0.0, 0.0, 0.0, c, source, target, near, others, number, first, owner, far
        )
        result[c, 3], result[c, 4], result[c, 5], result[c, 6] = rest / support, rest / support, support, lost
        if not may_move[c]:
            continue
        number = neighbourhood(box[c], 0.0, 0.0, reach + far, c, target, first, owner, second, near, others)
        tried[0] = 0.0
        count = 1 + vote(cluster, target, near, others, number, half, width, peaks, tried[1:])
        best_gain = -np.inf
        best = tried[0].copy()
        quick = max(1, iterations // 3)
        for h in range(count):
            t, sx, sy = refine(
                own, mx, my, tried[h], c, source, target, near, others, number, plain, quick, gate, gate, turn
            )
            if sx * sx + sy * sy > reach * reach:
                continue
            rest, cost, support, lost = costs(
                own, mx, my, t, sx, sy, c, source, target, near, others, number, first, owner, far
            )
            if rest - cost > best_gain:
                best_gain = rest - cost
                best[0], best[1], best[2] = t, sx, sy
        left = iterations - quick
        t, sx, sy = refine(
            own, mx, my, best, c, source, target, near, others, number, lines, left, gate, gate / 3, turn
        )
        rest, cost, support, lost = costs(
            own, mx, my, t, sx, sy, c, source, target, near, others, number, first, owner, far
        )
        if cost < rest and sx * sx + sy * sy <= reach * reach:
            result[c] = t, sx, sy, rest / support, cost / support, support, lost


@compiled
def follow(
    clusters, starts, box, source, target, first, owner, second, moving, may_follow, company, min_gain, far, result
):  # pragma: no cover - compiled
    """Give clusters the motion of a moving one beside them where that explains them better; return which move then."""
    near = np.empty(len(target.points), np.int64)
    others = np.empty(len(target.points))
    number = len(moving)
    new, taken = moving.copy(), result.copy()
    for c in range(number):
        if not may_follow[c]:
            continue
        size = starts[c + 1] - starts[c]
        mx, my = 0.5 * (box[c, 0] + box[c, 2]), 0.5 * (box[c, 1] + box[c, 3])
        own = clusters[starts[c] : starts[c + 1]].copy()
        own[:, 0] -= mx
        own[:, 1] -= my
        best = np.inf
        for d in range(number):
            if d == c or not moving[d] or (moving[c] and starts[d + 1] - starts[d] <= size):
                continue
            gap_x = max(box[d, 0] - box[c, 2], box[c, 0] - box[d, 2], 0.0)
            gap_y = max(box[d, 1] - box[c, 3], box[c, 1] - box[d, 3], 0.0)
            if gap_x * gap_x + gap_y * gap_y > company * company:
                continue
            # The other's motion, about this one's middle.
            t = result[d, 0]
            cos, sin = np.cos(t), np.sin(t)
            rx, ry = mx - 0.5 * (box[d, 0] + box[d, 2]), my - 0.5 * (box[d, 1] + box[d, 3])
            sx, sy = cos * rx - sin * ry - rx + result[d, 1], sin * rx + cos * ry - ry + result[d, 2]
            count = neighbourhood(box[c], sx, sy, far, c, target, first, owner, second, near, others)
            rest, cost, support, lost = costs(
                own, mx, my, t, sx, sy, c, source, target, near, others, count, first, owner, far
            )
            rest, cost = rest / support, cost / support
            accepted = cost < result[c, 4] + 0.03 if moving[c] else cost < (1.0 - min_gain) * rest
            if accepted and cost < best:
                best, new[c] = cost, True
                taken[c] = t, sx, sy, rest, cost, support, lost
    result[:] = taken
    return new
