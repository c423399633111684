(() => {
  const note = document.getElementById("note");
  let failures = 0;
  const turn = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(4000) });
        if (!answer.ok) throw new Error(answer.status);
        const next = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const part of ["main", "footer"]) {
          const [old, fresh] = [document, next].map((page) => page.querySelector(part));
          if (old.innerHTML !== fresh.innerHTML) old.replaceWith(document.adoptNode(fresh));
        }
        document.title = next.title;
        document.documentElement.dataset.live = "yes";
        failures = 0;
      } catch {
        failures += 1;
      }
      note.hidden = failures < 2;
    }
    setTimeout(turn, 5000);
  };
  setTimeout(turn, 5000);
})();
