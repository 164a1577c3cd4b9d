// Bindings of ops that carry features between points and cells.
#include "bind/binding.h"
#include "bind/tensor_workspace.h"
#include "flow_pairing.h"
#include "interpolate.h"

namespace equilidar {
namespace {

// Sums in half precision are made in float32 and rounded once.
Tensor computed(const Tensor& values) {
  const bool is_half = values.scalar_type() == at::kHalf || values.scalar_type() == at::kBFloat16;
  return (is_half ? values.to(at::kFloat) : values).contiguous();
}

std::tuple<Tensor, Tensor, Tensor> distinct_moves(
    const Tensor& rows, const Tensor& cells, const Tensor& weights, int64_t num_rows, int64_t num_cells) {
  const Tensor r = rows.contiguous(), c = cells.contiguous(), w = weights.contiguous();
  Tensor distinct_rows = at::empty({r.size(0)}, r.options()), distinct_cells = at::empty({r.size(0)}, r.options());
  Tensor sums = at::empty({r.size(0)}, w.options());
  TensorWorkspace workspace(r);
  EQL_RUN(r, distinct_moves, r.const_data_ptr<int64_t>(), c.const_data_ptr<int64_t>(), w.const_data_ptr<float>(),
          r.size(0), num_rows, num_cells, distinct_rows.mutable_data_ptr<int64_t>(),
          distinct_cells.mutable_data_ptr<int64_t>(), sums.mutable_data_ptr<float>(), workspace);
  return {distinct_rows, distinct_cells, sums};
}

Tensor scatter_sum(
    const Tensor& features, const Tensor& rows, const Tensor& cells, const Tensor& weights, int64_t num_cells) {
  const Tensor f = computed(features), r = rows.contiguous(), c = cells.contiguous();
  const Tensor w = weights.to(f.scalar_type()).contiguous();
  Tensor out = at::empty({num_cells, f.size(1)}, f.options());
  TensorWorkspace workspace(f);
  AT_DISPATCH_FLOATING_TYPES(f.scalar_type(), "scatter_sum", [&] {
    EQL_RUN(f, scatter_sum, f.const_data_ptr<scalar_t>(), f.size(0), f.size(1), r.const_data_ptr<int64_t>(),
            c.const_data_ptr<int64_t>(), w.const_data_ptr<scalar_t>(), r.size(0), num_cells,
            out.mutable_data_ptr<scalar_t>(), workspace);
  });
  return out.to(features.scalar_type());
}

std::tuple<Tensor, Tensor> scatter_max(
    const Tensor& features, const Tensor& rows, const Tensor& cells, int64_t num_cells) {
  const Tensor f = computed(features), r = rows.contiguous(), c = cells.contiguous();
  Tensor out = at::empty({num_cells, f.size(1)}, f.options());
  Tensor origin = at::empty({num_cells, f.size(1)}, r.options());
  TensorWorkspace workspace(f);
  AT_DISPATCH_FLOATING_TYPES(f.scalar_type(), "scatter_max", [&] {
    EQL_RUN(f, scatter_max, f.const_data_ptr<scalar_t>(), f.size(0), f.size(1), r.const_data_ptr<int64_t>(),
            c.const_data_ptr<int64_t>(), r.size(0), num_cells, out.mutable_data_ptr<scalar_t>(),
            origin.mutable_data_ptr<int64_t>(), workspace);
  });
  return {out.to(features.scalar_type()), origin};
}

Tensor scatter_max_backward(
    const Tensor& grad, const Tensor& origin, const Tensor& rows, const Tensor& cells, int64_t num_rows) {
  const Tensor g = computed(grad), o = origin.contiguous(), r = rows.contiguous(), c = cells.contiguous();
  Tensor out = at::empty({num_rows, g.size(1)}, g.options());
  TensorWorkspace workspace(g);
  AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "scatter_max_backward", [&] {
    EQL_RUN(g, scatter_max_backward, g.const_data_ptr<scalar_t>(), o.const_data_ptr<int64_t>(), g.size(1),
            r.const_data_ptr<int64_t>(), c.const_data_ptr<int64_t>(), r.size(0), g.size(0), num_rows,
            out.mutable_data_ptr<scalar_t>(), workspace);
  });
  return out.to(grad.scalar_type());
}

Tensor gather_weighted(const Tensor& features, const Tensor& rows, const Tensor& weights) {
  const Tensor f = computed(features), r = rows.contiguous(), w = weights.to(f.scalar_type()).contiguous();
  Tensor out = at::empty({r.size(0), f.size(1)}, f.options());
  AT_DISPATCH_FLOATING_TYPES(f.scalar_type(), "gather_weighted", [&] {
    EQL_RUN(f, gather_weighted, f.const_data_ptr<scalar_t>(), f.size(0), f.size(1), r.const_data_ptr<int64_t>(),
            w.const_data_ptr<scalar_t>(), r.size(0), r.size(1), out.mutable_data_ptr<scalar_t>());
  });
  return out.to(features.scalar_type());
}

Tensor spread_weighted(const Tensor& grad, const Tensor& rows, const Tensor& weights, int64_t num_rows) {
  const Tensor g = computed(grad), r = rows.contiguous(), w = weights.to(g.scalar_type()).contiguous();
  Tensor out = at::empty({num_rows, g.size(1)}, g.options());
  TensorWorkspace workspace(g);
  AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "spread_weighted", [&] {
    EQL_RUN(g, spread_weighted, g.const_data_ptr<scalar_t>(), g.size(1), r.const_data_ptr<int64_t>(),
            w.const_data_ptr<scalar_t>(), r.size(0), r.size(1), num_rows, out.mutable_data_ptr<scalar_t>(), workspace);
  });
  return out.to(grad.scalar_type());
}

Tensor find_cells(const Tensor& coords, const Tensor& cells, at::IntArrayRef limits) {
  const Tensor held = coords.to(at::kInt).contiguous(), wanted = cells.contiguous();
  Tensor rows = at::empty({wanted.size(0)}, wanted.options().dtype(at::kLong));
  const CellLimits shape{{limits[0], limits[1], limits[2], limits[3]}};
  TensorWorkspace workspace(held);
  AT_DISPATCH_INDEX_TYPES(wanted.scalar_type(), "find_cells", [&] {
    EQL_RUN(held, find_cells, held.const_data_ptr<int32_t>(), held.size(0), wanted.const_data_ptr<index_t>(),
            wanted.size(0), shape, rows.mutable_data_ptr<int64_t>(), workspace);
  });
  return rows;
}

}  // namespace

EQL_REGISTER("distinct_moves", distinct_moves)
EQL_REGISTER("find_cells", find_cells)
EQL_REGISTER("gather_weighted", gather_weighted)
EQL_REGISTER("scatter_max", scatter_max)
EQL_REGISTER("scatter_max_backward", scatter_max_backward)
EQL_REGISTER("scatter_sum", scatter_sum)
EQL_REGISTER("spread_weighted", spread_weighted)

}  // namespace equilidar
