"use strict";

// The images of one scan: NiiVue draws them, this file connects it to the page's controls.
(async () => {
  const byId = (id) => document.getElementById(id);
  const page = JSON.parse(byId("viewer").textContent);
  const controls = byId("controls");
  const slider = byId("slice");

  // From the bottom to the top; each layer is loaded when it is first shown.
  const ORDER = ["scan", "healthy", "uncertainty", "lesion_probability", "labels"];
  const GREY = page.layers.scan ? "scan" : "lesion_probability";
  const AXES = { axial: 2, coronal: 1, sagittal: 0, all: 2 }; // of the slider: x, y, z
  const VIEWS = { axial: 0, coronal: 1, sagittal: 2, all: 3 }; // NiiVue's numbers
  const ENDS = [["left", "right"], ["back", "front"], ["feet", "head"]]; // of x, y, z
  const LESIONS = [2, 3];
  // Axial on the left, the others to its right. Positions: left, top, width, height.
  const ALL_THREE = [
    { sliceType: 0, position: [0, 0, 0.6, 1] },
    { sliceType: 1, position: [0.605, 0, 0.395, 0.495] },
    { sliceType: 2, position: [0.605, 0.505, 0.395, 0.495] },
  ];
  // Colours of the maps: position in 0-255, red, green, blue.
  const RAMP = [
    [0, 60, 10, 100],
    [1, 60, 10, 100],
    [16, 80, 18, 123],
    [96, 182, 54, 121],
    [176, 251, 136, 97],
    [255, 252, 253, 191],
  ];
  const RANGES = { uncertainty: [0, page.maxEntropy], lesion_probability: [0, 1] };
  const TEXTS = {
    scan: (value) => ["Scan", `${number(value, 0)} HU`],
    healthy: (value) => ["Healthy counterfactual", `${number(value, 0)} HU`],
    labels: (value) => ["Segmentation", classOf(value)],
    uncertainty: (value) => ["Uncertainty", `${number(value, 3)} nats`],
    lesion_probability: (value) => ["Lesion probability", number(value, 3)],
  };

  const loaded = {}; // NiiVue's volumes, by layer
  let counts = []; // for each axis, for each slice: voxels of every lesion class
  let place = [0, 0, 0]; // voxel of the crosshair, from the left, the back, the feet
  let zoom = 1;

  const nv = new niivue.Niivue({
    isRadiologicalConvention: true,
    sagittalNoseLeft: true,
    isNearestInterpolation: true,
    isForceMouseClickToVoxelCenters: true,
    dragMode: 2, // the right button measures
    dragAndDropEnabled: false,
    multiplanarShowRender: 0,
    multiplanarForceRender: false,
    crosshairColor: [1, 0.85, 0.2, 0.9],
    crosshairWidthUnit: "mm",
    crosshairWidth: 0.8,
    crosshairGap: 8,
    fontColor: [1, 0.55, 0, 1], // visible on black and on white
    fontMinPx: 16,
    loadingText: "",
    logLevel: "error",
  });

  const number = (value, digits) => value.toFixed(digits).replace(/^-(?=.*[1-9])/, "−");
  const classOf = (value) =>
    page.classes.find((each) => each.value === Math.round(value))?.name ?? "outside the lungs";
  const size = (axis) => loaded[GREY].dimsRAS[axis + 1];
  const axisNow = () => AXES[controls.view.value];
  const later = (action, ms) => {
    let timer = 0;
    return () => {
      clearTimeout(timer);
      timer = setTimeout(action, ms);
    };
  };

  async function load(layer) {
    if (loaded[layer]) return;
    byId("status").textContent = `Loading ${TEXTS[layer](0)[0].toLowerCase()}…`;
    const from = page.layers[layer];
    const options = { name: `${layer}.nii`, colormap: layer in RANGES ? "map" : "solid" };
    [options.cal_min, options.cal_max] = RANGES[layer] ?? [0, 1];
    const volume = from.url
      ? await niivue.NVImage.loadFromUrl({ ...options, url: from.url })
      : await niivue.NVImage.loadFromBase64({
          ...options,
          base64: byId(from.element).textContent.trim(),
        });
    if (from.element) byId(from.element).remove(); // frees its memory
    if (layer === GREY) volume.colormap = "solid";
    if (layer === "labels") counts = count(volume);
    loaded[layer] = volume;
    nv.addVolume(volume); // on top
    const at = ORDER.filter((each) => loaded[each]).indexOf(layer);
    if (nv.volumes[at] !== volume) nv.setVolume(volume, at);
    byId("status").textContent = "";
  }

  // Lesion voxels per slice along x, y and z.
  function count(volume) {
    const [, nx, ny, nz] = volume.hdr.dims;
    const along = [nx, ny, nz].map((n) => Array.from({ length: n }, () => [0, 0]));
    let at = 0;
    for (let k = 0; k < nz; k++) {
      for (let j = 0; j < ny; j++) {
        for (let i = 0; i < nx; i++, at++) {
          const lesion = volume.img[at] - LESIONS[0];
          if (lesion < 0) continue;
          along[0][i][lesion]++;
          along[1][j][lesion]++;
          along[2][k][lesion]++;
        }
      }
    }
    return volume.permRAS.map((p) => (p < 0 ? along[-p - 1].reverse() : along[p - 1]));
  }

  // The file's voxel of a displayed voxel, whose axes run from left, back and feet.
  function fileVoxel(at) {
    const voxel = [0, 0, 0];
    loaded[GREY].permRAS.forEach((p, axis) => {
      const native = Math.abs(p) - 1;
      const index = p < 0 ? size(axis) - 1 - at[axis] : at[axis];
      voxel[native] = page.start[native] + page.step[native] * index;
    });
    return voxel;
  }

  function moveTo(target) {
    const at = target.map((v, axis) => Math.min(Math.max(v, 0), size(axis) - 1));
    nv.moveCrosshairInVox(...at.map((v, axis) => v - place[axis]));
  }

  function moveAlong(axis, by) {
    moveTo(place.map((v, a) => (a === axis ? v + by : v)));
  }

  function toLesion(direction) {
    const axis = axisNow();
    for (let n = place[axis] + direction; n >= 0 && n < size(axis); n += direction) {
      if (counts[axis][n][0] + counts[axis][n][1]) return moveAlong(axis, n - place[axis]);
    }
  }

  // A lesion voxel on the axial slice with the most lesion; without lesions, the centre.
  function mostSevere() {
    const sums = counts[2].map(([ggo, dense]) => ggo + dense);
    const z = sums.indexOf(Math.max(...sums));
    const lesion = [];
    for (let y = 0; sums[z] && y < size(1); y++) {
      for (let x = 0; x < size(0); x++) {
        if (loaded.labels.getValue(x, y, z) >= LESIONS[0]) lesion.push([x, y, z]);
      }
    }
    if (!lesion.length) return [0, 1, 2].map((axis) => Math.floor(size(axis) / 2));
    const [middleX, middleY] = [0, 1].map((a) => lesion.reduce((sum, v) => sum + v[a], 0) / lesion.length);
    const far = ([x, y]) => (x - middleX) ** 2 + (y - middleY) ** 2;
    return lesion.reduce((best, v) => (far(v) < far(best) ? v : best));
  }

  function sliceText(axis) {
    const [ggo, dense] = counts[axis][place[axis]];
    const lesions = [ggo && "GGO", dense && "consolidation"].filter(Boolean).join(" and ");
    const position = `Slice ${place[axis] + 1} of ${size(axis)}, from the ${ENDS[axis].join(" to the ")}`;
    return `${position}${lesions ? `, with ${lesions}` : ", without lesions"}`;
  }

  const speak = later(() => {
    const values = Array.from(byId("values").rows, (row) => row.cells[1].textContent);
    byId("spoken").textContent = `${byId("where").textContent}. ${values.join(", ")}`;
  }, 600);

  function showLocation(location) {
    place = Array.from(nv.frac2vox(nv.scene.crosshairPos), Math.round);
    const axis = axisNow();
    slider.max = size(axis);
    slider.value = place[axis] + 1;
    slider.setAttribute("aria-valuetext", sliceText(axis));
    byId("where").textContent = sliceText(axis);
    const mm = Array.from(location.mm).slice(0, 3);
    const sides = ["LR", "PA", "IS"]; // negative and positive direction
    const position = mm.map((v, a) => `${number(Math.abs(v), 1)} ${sides[a][v < 0 ? 0 : 1]}`);
    const rows = [
      ...ORDER.filter((layer) => loaded[layer]).map((layer) => [
        layer,
        ...TEXTS[layer](loaded[layer].getValue(...place)),
      ]),
      ["voxel", "Voxel of the file (i, j, k from 0)", fileVoxel(place).join(", ")],
      ["position", "Position in mm", position.join(", ")],
    ];
    byId("values").replaceChildren(
      ...rows.map(([name, title, text]) => {
        const row = document.createElement("tr");
        row.dataset.name = name;
        const header = row.appendChild(document.createElement("th"));
        header.scope = "row";
        header.textContent = title;
        row.appendChild(document.createElement("td")).textContent = text;
        return row;
      }),
    );
    drawProfile();
    speak();
  }

  // Bars above the slider: the lesion voxels of each slice, stacked by class.
  function drawProfile() {
    const canvas = byId("profile");
    const scale = window.devicePixelRatio;
    canvas.width = canvas.clientWidth * scale;
    canvas.height = canvas.clientHeight * scale;
    const pen = canvas.getContext("2d");
    const slices = counts[axisNow()];
    const most = Math.max(1, ...slices.map(([ggo, dense]) => ggo + dense));
    const colours = LESIONS.map((value) => page.classes.find((c) => c.value === value).colour);
    const width = canvas.width / slices.length;
    slices.forEach((lesions, n) => {
      let top = canvas.height;
      lesions.toReversed().forEach((voxels, c) => {
        const height = (voxels / most) * canvas.height;
        pen.fillStyle = colours[1 - c];
        pen.fillRect(n * width, top - height, width > 4 ? width - 1 : width, height);
        top -= height;
      });
    });
  }

  function labelColours() {
    const shown = Array.from(controls.elements.class).filter((box) => box.checked);
    const map = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: ["outside the lungs"] };
    for (const { value, name, colour } of page.classes) {
      map.R.push(parseInt(colour.slice(1, 3), 16));
      map.G.push(parseInt(colour.slice(3, 5), 16));
      map.B.push(parseInt(colour.slice(5, 7), 16));
      map.A.push(shown.some((box) => Number(box.value) === value) ? 255 : 0);
      map.I.push(value);
      map.labels.push(name);
    }
    return map;
  }

  // Update the page to the state of the controls.
  async function show() {
    const share = (name) => (controls[name] ? Number(controls[name].value) / 100 : 0);
    const map = controls.map.value;
    if (map) await load(map);
    if (share("healthy-opacity")) await load("healthy");

    const [low, high] = controls.window.value.split(",").map(Number);
    for (const [layer, volume] of Object.entries(loaded)) {
      if (layer === "scan" || layer === "healthy") [volume.cal_min, volume.cal_max] = [low, high];
      if (layer in RANGES && layer !== GREY) {
        volume.opacity = layer === map ? share("map-opacity") : 0;
        volume.colormapType = 2; // colours start at 0; values below cal_min are hidden
        volume.cal_min = share("map-from") * volume.cal_max;
      }
    }
    if (loaded.healthy) loaded.healthy.opacity = share("healthy-opacity");
    loaded.labels.opacity = share("label-opacity");
    loaded.labels.setColormapLabel(labelColours());
    nv.opts.isNearestInterpolation = !controls.smooth.checked;
    const unit = map === "uncertainty" ? " nats" : "";
    const [, most] = RANGES[map] ?? [0, 1];
    byId("map-least").textContent = number(share("map-from") * most, 2) + unit;
    byId("ramp-end").textContent = number(most, 2) + unit;
    byId("map-controls").hidden = !map;
    nv.updateGLVolume();
    nv.createOnLocationChange(); // adds the values of new volumes to the table
  }

  function showView() {
    const view = controls.view.value;
    if (view === "all") nv.setCustomLayout(ALL_THREE);
    else nv.clearCustomLayout();
    nv.setSliceType(VIEWS[view]);
    nv.createOnLocationChange();
  }

  // Zoom about the crosshair, which keeps its position on the screen.
  function showZoom() {
    const [x, y, z] = nv.frac2mm(nv.scene.crosshairPos);
    const pan = nv.scene.pan2Dxyzmm;
    const by = zoom - Number(controls.zoom.value);
    zoom = Number(controls.zoom.value);
    nv.setPan2Dxyzmm(zoom === 1 ? [0, 0, 0, 1] : [pan[0] + by * x, pan[1] + by * y, pan[2] + by * z, zoom]);
  }

  const keys = () => {
    const through = axisNow();
    // Axis and direction of right and up in the image, per viewing axis.
    const [across, up] = [[[1, 1], [2, 1]], [[0, -1], [2, 1]], [[0, -1], [1, 1]]][through];
    return {
      PageUp: () => moveAlong(through, 1),
      PageDown: () => moveAlong(through, -1),
      Home: () => moveAlong(through, -size(through)),
      End: () => moveAlong(through, size(through)),
      ArrowRight: () => moveAlong(across[0], through === 0 ? -1 : across[1]),
      ArrowLeft: () => moveAlong(across[0], through === 0 ? 1 : -across[1]),
      ArrowUp: () => moveAlong(up[0], up[1]),
      ArrowDown: () => moveAlong(up[0], -up[1]),
    };
  };

  function connect() {
    const image = byId("image");
    // NiiVue focuses the canvas at every click; the page must not scroll to it.
    image.focus = () => HTMLElement.prototype.focus.call(image, { preventScroll: true });
    // NiiVue's own keyboard shortcuts are disabled: users would trigger them by accident.
    for (const type of ["keydown", "keyup"]) {
      image.parentElement.addEventListener(type, (event) => event.stopPropagation(), true);
    }
    image.parentElement.addEventListener("keydown", (event) => {
      const action = keys()[event.key];
      if (!action || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      action();
    }, true);
    slider.addEventListener("input", () => moveAlong(axisNow(), slider.value - 1 - place[axisNow()]));
    byId("previous").addEventListener("click", () => toLesion(-1));
    byId("next").addEventListener("click", () => toLesion(1));
    const soon = later(() => guarded(show), 30);
    controls.addEventListener("input", (event) => {
      if (event.target.name === "view") showView();
      else if (event.target.name === "zoom") showZoom();
      else soon();
    });
    controls.addEventListener("reset", () => {
      setTimeout(() => {
        nv.clearAllMeasurements();
        showZoom();
        showView();
        moveTo(mostSevere());
        soon();
      });
    });
    new ResizeObserver(drawProfile).observe(byId("profile"));
  }

  async function guarded(action) {
    try {
      await action();
    } catch (error) {
      byId("status").textContent = `The images cannot be shown: ${error.message}`;
    }
  }

  for (const swatch of document.querySelectorAll(".swatch")) {
    swatch.style.backgroundColor = swatch.dataset.colour;
  }
  const stops = RAMP.map(([at, r, g, b]) => `rgb(${r} ${g} ${b}) ${at / 2.55}%`);
  document.querySelector(".ramp").style.backgroundImage = `linear-gradient(to right, ${stops})`;

  await guarded(async () => {
    if (!document.createElement("canvas").getContext("webgl2")) {
      throw new Error("this browser does not support WebGL 2");
    }
    const columns = RAMP[0].map((_, column) => RAMP.map((node) => node[column]));
    const [I, R, G, B] = columns;
    nv.addColormap("map", { I, R, G, B, A: I.map((at) => (at ? 255 : 0)) }); // 0 is transparent
    // NiiVue's own grey is half transparent and would not hide the layers below.
    nv.addColormap("solid", { I: [0, 255], R: [0, 255], G: [0, 255], B: [0, 255], A: [255, 255] });
    await nv.attachToCanvas(byId("image"));
    nv.setSliceType(VIEWS.axial);
    await load(GREY);
    await load("labels");
    nv.onLocationChange = showLocation;
    place = Array.from(nv.frac2vox(nv.scene.crosshairPos), Math.round);
    connect();
    moveTo(mostSevere());
    await show();
    document.documentElement.dataset.ready = "yes"; // for tests
  });
  window.viewer = nv; // for the browser's developer tools and for tests
})();
